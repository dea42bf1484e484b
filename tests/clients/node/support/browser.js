// Headless Chromium, and tabs in it that run an unmodified web build of pusher-js.

import { chromium } from 'playwright-core';
import { shop } from './apps.js';

/** A browser with a fresh profile. */
export function openBrowser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** A tab with one client in it. What it does and sees is done and seen inside the page. */
export class Tab {
  #page;

  /**
   * Opens a page of the back end that loads the script named `build`, and connects from there.
   *
   * `key` is the app's key, `who` the person at the keyboard, known to the back end by that name alone.
   */
  static async open(t, context, backEnd, broker, build, { who = 'ann', key = shop.keys[0].key } = {}) {
    const tab = new Tab();
    tab.#page = await context.newPage();
    t.after(() => tab.#page.close());
    await tab.#page.goto(`${backEnd.url}/${build}`);
    await tab.#page.waitForFunction(() => window.Client && window.Pusher);
    const auth = (path) => ({ endpoint: `${backEnd.url}${path}`, transport: 'ajax', params: { user: who } });
    const options = {
      ...broker.clientOptions(),
      channelAuthorization: auth('/pusher/auth'),
      userAuthentication: auth('/pusher/user-auth'),
    };
    await tab.do(
      ([key, options]) => {
        window.client = new window.Client(window.Pusher, key, options);
        window.subscriptions = {};
      },
      [key, options],
    );
    return tab;
  }

  /** Runs `script` in the page; what it returns, or resolves to. */
  do(script, argument) {
    return this.#page.evaluate(script, argument);
  }

  async connected(ms) {
    await this.do((ms) => window.client.connected(ms).then(() => undefined), ms);
    return this;
  }

  state() {
    return this.do(() => window.client.connection.state);
  }

  socketId() {
    return this.do(() => window.client.socketId);
  }

  /** Subscribes without waiting for an answer. */
  async subscribe(channel) {
    await this.do((channel) => {
      window.subscriptions[channel] = window.client.subscribe(channel);
    }, channel);
  }

  /** Subscribes; what came with the success. */
  async enter(channel) {
    await this.subscribe(channel);
    return this.do((channel) => window.subscriptions[channel].succeeded(), channel);
  }

  /** Subscribes in vain; what came with the refusal. */
  async enterInVain(channel) {
    await this.subscribe(channel);
    return this.do((channel) => window.subscriptions[channel].refused(), channel);
  }

  leaveChannel(channel) {
    return this.do((channel) => window.client.pusher.unsubscribe(channel), channel);
  }

  /** The very next event on a channel. */
  next(channel) {
    return this.do((channel) => window.subscriptions[channel].next(), channel);
  }

  /** The first event of this name on a channel from now on; those before it are dropped. */
  find(channel, wanted) {
    return this.do(
      ([channel, wanted]) => window.subscriptions[channel].inbox.find(({ event }) => event === wanted, wanted),
      [channel, wanted],
    );
  }

  trigger(channel, event, data) {
    return this.do(
      ([channel, event, data]) => window.subscriptions[channel].channel.trigger(event, data),
      [channel, event, data],
    );
  }

  /** Starts to keep the `user_id` of events of one name. */
  async watch(channel, event) {
    await this.do(
      ([channel, event]) => {
        window.watched = window.subscriptions[channel].of(event);
      },
      [channel, event],
    );
  }

  nextWatched() {
    return this.do(() => window.watched.next());
  }

  error(code) {
    return this.do((code) => window.client.error(code), code);
  }

  nextError() {
    return this.do(() => window.client.errors.next());
  }

  nextFrame() {
    return this.do(() => window.client.frames.next());
  }

  signIn() {
    return this.do(() => window.client.signIn());
  }

  signedInAgain() {
    return this.do(() => window.client.signedIn());
  }

  nextUserEvent() {
    return this.do(() => window.client.userEvents.next());
  }

  reaches(state) {
    return this.do((state) => window.client.reaches(state), state);
  }

  /** Closes the tab, as a user does. */
  close() {
    return this.#page.close();
  }
}
