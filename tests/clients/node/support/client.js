// An official pusher-js client, unmodified, with everything it reports kept in inboxes.
// Loaded by the tests and by the pages in the browser alike.

import { Inbox } from './inbox.js';

export class Client {
  /** Every frame after the handshake, as pusher-js decoded it: `{ event, channel, data, user_id }`. */
  frames = new Inbox('the frames of a connection');
  /** Every error of the connection: `{ code, message }`. */
  errors = new Inbox('the errors of a connection');
  /** Every state the connection went to, as `from -> to`. */
  states = new Inbox('the states of a connection');

  constructor(Pusher, key, options) {
    this.pusher = new Pusher(key, options);
    this.connection = this.pusher.connection;
    // A copy, because a presence channel goes on to change the hash of members it was given.
    this.connection.bind('message', (frame) => this.frames.put(JSON.parse(JSON.stringify(frame))));
    this.connection.bind('error', (report) => this.errors.put(report.error?.data ?? report.data ?? report));
    this.connection.bind('state_change', ({ previous, current }) => this.states.put(`${previous} -> ${current}`));
  }

  get socketId() {
    return this.connection.socket_id;
  }

  /** Itself, once the connection is established: for the first time, or again after it was lost. */
  async connected(ms) {
    await this.reaches('connected', ms);
    return this;
  }

  /** Waits until the connection next enters `state`. */
  async reaches(state, ms) {
    await this.states.find((change) => change.endsWith(`-> ${state}`), `the state ${state}`, ms);
  }

  /** Waits for an error with this code; the errors before it are dropped. */
  error(code) {
    return this.errors.find((error) => error.code === code, `an error with code ${code}`);
  }

  subscribe(name) {
    return new Subscription(this.pusher.subscribe(name));
  }

  /** Sends a frame as it is, for what pusher-js itself would not say. */
  say(event, data, channel) {
    this.pusher.send_event(event, data, channel);
  }

  /** Resolves when the server has dealt with everything said before: frames of one connection are read in order. */
  async heard() {
    this.say('pusher:ping', {});
    await this.frames.find((frame) => frame.event === 'pusher:pong', 'pusher:pong');
  }

  /** Signs in and waits until the server has taken the subscription to the user's own events too. */
  async signIn() {
    this.userEvents = new Inbox('the events of a user');
    this.pusher.user.bind_global((event, data) => this.userEvents.put({ event, data }));
    this.watchlist = new Inbox('the watchlist events');
    this.pusher.user.watchlist.bind_global((event, { user_ids }) => this.watchlist.put({ event, user_ids }));
    this.pusher.signin();
    await this.signedIn();
  }

  /** Waits for the two answers that follow a sign-in, the first one or one after a reconnection. */
  async signedIn() {
    await this.frames.find((frame) => frame.event === 'pusher:signin_success', 'pusher:signin_success');
    await this.frames.find(
      (frame) =>
        frame.event === 'pusher_internal:subscription_succeeded' && frame.channel.startsWith('#server-to-user-'),
      "the subscription to the user's own events",
    );
  }

  leave() {
    this.pusher.disconnect();
  }
}

/** One channel of one client, with everything that pusher-js raised on it. */
export class Subscription {
  constructor(channel) {
    this.channel = channel;
    this.inbox = new Inbox(`channel ${channel.name}`);
    channel.bind_global((event, data) => this.inbox.put({ event, data: plain(data) }));
  }

  /** Waits for the success, which must be the next thing on the channel; what came with it. */
  async succeeded() {
    const next = await this.inbox.next('pusher:subscription_succeeded');
    if (next.event !== 'pusher:subscription_succeeded') {
      throw new Error(`${this.channel.name}: instead of the success came ${JSON.stringify(next)}`);
    }
    return next.data;
  }

  /** Waits for the refusal, which must be the next thing on the channel: `{ type, error, status }`. */
  async refused() {
    const next = await this.inbox.next('pusher:subscription_error');
    if (next.event !== 'pusher:subscription_error') {
      throw new Error(`${this.channel.name}: instead of the refusal came ${JSON.stringify(next)}`);
    }
    return next.data;
  }

  /** The very next event on the channel. */
  next(what) {
    return this.inbox.next(what);
  }

  /** Keeps events of one name apart, with their metadata: `{ data, user_id }`. */
  of(event) {
    const inbox = new Inbox(`${event} on ${this.channel.name}`);
    this.channel.bind(event, (data, metadata) => inbox.put({ data, ...metadata }));
    return inbox;
  }
}

// The members of a presence channel are one live object; what was true when it was raised is worth keeping.
function plain(data) {
  if (data === undefined) return undefined;
  if (typeof data?.each !== 'function') return JSON.parse(JSON.stringify(data));
  const all = {};
  data.each(({ id, info }) => (all[id] = info));
  return JSON.parse(JSON.stringify({ count: data.count, me: data.me, all }));
}
