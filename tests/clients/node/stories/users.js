import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { shop } from '../support/apps.js';
import { fresh } from '../support/world.js';

export function users(world) {
  /** A client that has signed in as `user`. */
  const signedIn = async (t, user) => {
    const client = await world.connect(t, { user });
    await client.signIn();
    return client;
  };

  describe('a signed-in user', () => {
    test('P50: is who the app says, word for word', async (t) => {
      const user = { id: fresh('ann'), user_info: { name: 'Zoë 日本' }, anything: [1, 'else'] };
      const ann = await world.connect(t, { user });
      ann.pusher.signin();
      assert.deepEqual(await ann.frames.next(), {
        event: 'pusher:signin_success',
        data: { user_data: JSON.stringify(user) },
      });
      assert.deepEqual(ann.pusher.user.user_data, user);
      await ann.pusher.user.signinDonePromise;
    });

    test('P54: gets what is sent to the user once, in every tab, and nobody else does', async (t) => {
      const [ann, bob] = [fresh('ann'), fresh('bob')];
      const tabs = [await signedIn(t, { id: ann }), await signedIn(t, { id: ann })];
      const other = await signedIn(t, { id: bob });
      await world.server.sendToUser(ann, 'mail', { subject: 'hello' });
      await world.server.sendToUser(ann, 'marker', 1);
      await world.server.sendToUser(bob, 'marker', 2);
      for (const tab of tabs) {
        assert.deepEqual(await tab.userEvents.next(), { event: 'mail', data: { subject: 'hello' } });
        assert.deepEqual(await tab.userEvents.next(), { event: 'marker', data: 1 });
      }
      assert.deepEqual(await other.userEvents.next(), { event: 'marker', data: 2 });
    });

    test("P55: cannot listen to another user's events", async (t) => {
      const [ann, bob] = [fresh('ann'), fresh('bob')];
      const client = await signedIn(t, { id: ann });
      client.say('pusher:subscribe', { channel: `#server-to-user-${bob}`, auth: '' });
      const { code, message } = await client.errors.next();
      assert.equal(code, null);
      assert.match(message, /^Not authorized to subscribe to #server-to-user-bob-/);
      const stranger = await world.connect(t);
      stranger.say('pusher:subscribe', { channel: `#server-to-user-${bob}`, auth: '' });
      assert.match((await stranger.errors.next()).message, /^Not authorized to subscribe to #server-to-user-bob-/);
    });

    test('P51: is nobody with a wrong signature or without an id', async (t) => {
      const thief = world.broker.sdk(shop, { secret: 'stolen' });
      const attempt = async (permit, message) => {
        const client = await world.connect(t, {
          options: { userAuthentication: { customHandler: ({ socketId }, answer) => answer(null, permit(socketId)) } },
        });
        client.pusher.signin();
        const error = await client.errors.next();
        assert.equal(error.code, null);
        assert.match(error.message, message);
        assert.equal(client.pusher.user.user_data, null);
        const channel = client.subscribe(fresh('news')); // the connection is still good
        await channel.succeeded();
      };
      const signed = (socketId, text) => ({
        auth: `${shop.keys[0].key}:${world.server.config.token.sign(`${socketId}::user::${text}`)}`,
        user_data: text,
      });
      await attempt((id) => thief.authenticateUser(id, { id: 'ann' }), /^Invalid signature/);
      await attempt((id) => signed(id, '{"id":""}'), /^Invalid user_data/);
      await attempt((id) => signed(id, '{"id":7}'), /^Invalid user_data/);
      await attempt((id) => signed(id, '{"name":"ann"}'), /^Invalid user_data/);
      await attempt((id) => signed(id, '{"id":'), /^Invalid user_data/);
      await attempt(
        () => ({ auth: 'no colon', user_data: '{"id":"ann"}' }),
        /^Invalid format: auth must have the format key:signature/,
      );
    });

    test('P52: may sign in again as the same user, not as another', async (t) => {
      const id = fresh('ann');
      const ann = await signedIn(t, { id });
      ann.say('pusher:signin', world.server.authenticateUser(ann.socketId, { id, user_info: { name: 'Ann' } }));
      assert.equal((await ann.frames.next()).event, 'pusher:signin_success');
      // pusher-js then subscribes to the events of its user as if it were for the first time.
      assert.equal((await ann.errors.next()).message, `Existing subscription to channel #server-to-user-${id}`);
      ann.say('pusher:signin', world.server.authenticateUser(ann.socketId, { id: 'bob' }));
      assert.deepEqual(await ann.errors.next(), {
        code: null,
        message: 'Connection already signed in as a different user',
      });
    });

    test('P58: is thrown out of every tab with 4009, others stay, and may come back', async (t) => {
      const [ann, bob] = [fresh('ann'), fresh('bob')];
      const tabs = [await signedIn(t, { id: ann }), await signedIn(t, { id: ann })];
      const other = await signedIn(t, { id: bob });
      const member = await world.connect(t, { member: { user_id: ann } });
      const room = member.subscribe(fresh('presence-room'));
      await room.succeeded();

      const response = await world.server.terminateUserConnections(ann);
      assert.equal(await response.text(), '{}');
      for (const tab of tabs) {
        assert.equal((await tab.error(4009)).message, 'You got disconnected by the app.');
        await tab.reaches('disconnected');
      }
      await world.server.sendToUser(bob, 'marker', 1);
      assert.deepEqual(await other.userEvents.next(), { event: 'marker', data: 1 });
      await world.server.trigger(room.channel.name, 'marker', 2); // the same id, but not signed in
      assert.deepEqual(await room.next(), { event: 'marker', data: 2 });

      tabs[0].pusher.connect();
      await tabs[0].connected();
      await tabs[0].signedIn();
      await world.server.sendToUser(ann, 'marker', 3);
      assert.deepEqual(await tabs[0].userEvents.next(), { event: 'marker', data: 3 });
    });
  });

  describe('a watchlist', () => {
    test('P56 P57: says who is online, who comes and who goes, tabs aside', async (t) => {
      const [ann, bob, carl] = [fresh('ann'), fresh('bob'), fresh('carl')];
      await signedIn(t, { id: bob });
      const watcher = await signedIn(t, { id: ann, watchlist: [bob, carl] });
      assert.deepEqual(await watcher.watchlist.next(), { event: 'online', user_ids: [bob] });
      assert.deepEqual(await watcher.watchlist.next(), { event: 'offline', user_ids: [carl] });

      const first = await signedIn(t, { id: carl });
      assert.deepEqual(await watcher.watchlist.next(), { event: 'online', user_ids: [carl] });
      const second = await signedIn(t, { id: carl });
      first.leave();
      second.leave();
      assert.deepEqual(await watcher.watchlist.next(), { event: 'offline', user_ids: [carl] });
      await signedIn(t, { id: carl });
      assert.deepEqual(await watcher.watchlist.next(), { event: 'online', user_ids: [carl] });
    });

    test('P56: leaves out an empty list', async (t) => {
      const [ann, bob] = [fresh('ann'), fresh('bob')];
      const watcher = await world.connect(t, { user: { id: ann, watchlist: [bob] } });
      watcher.pusher.signin();
      const frame = await watcher.frames.find(({ event }) => event === 'pusher_internal:watchlist_events');
      assert.deepEqual(frame, {
        event: 'pusher_internal:watchlist_events',
        data: { events: [{ name: 'offline', user_ids: [bob] }] },
      });
    });

    test('P53: of 101 users counts for the first 100', async (t) => {
      const list = Array.from({ length: 101 }, (_, i) => fresh(`watched-${i}`));
      const ann = await world.connect(t, { user: { id: fresh('ann'), watchlist: list } });
      ann.pusher.signin();
      assert.equal((await ann.frames.next()).event, 'pusher:signin_success');
      const error = await ann.frames.next();
      assert.equal(error.event, 'pusher:error');
      assert.equal(error.data.code, 4302);
      assert.match(error.data.message, /100/);
      const { data } = await ann.frames.next();
      assert.deepEqual([...data.events[0].user_ids].sort(), list.slice(0, 100).sort());
    });
  });
}
