import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, test } from 'node:test';
import { counted, shop, small } from '../support/apps.js';
import { within } from '../support/inbox.js';
import { fresh } from '../support/world.js';

const ann = { user_id: 'ann', user_info: { name: 'Ann' } };
const bob = { user_id: 'bob', user_info: { name: 'Bob' } };

export function presence(world) {
  /** A client of `member` that has joined the channel `name`. */
  const join = async (t, name, member, about = {}) => {
    const client = await world.connect(t, { member, ...about });
    const room = client.subscribe(name);
    return { client, room, snapshot: await room.succeeded() };
  };

  /** That the next thing `room` hears is what is published now: nothing came before it. */
  const hearsOnlyMarker = async (room, server = world.server) => {
    await server.trigger(room.channel.name, 'marker', room.channel.name);
    assert.deepEqual(await room.next(), { event: 'marker', data: room.channel.name });
  };

  describe('a presence channel', () => {
    test('P31: shows a member to itself', async (t) => {
      const { room, snapshot } = await join(t, fresh('presence-room'), ann);
      const me = { id: 'ann', info: { name: 'Ann' } };
      assert.deepEqual(snapshot, { count: 1, me, all: { ann: { name: 'Ann' } } });
      assert.deepEqual(room.channel.members.me, me);
      assert.deepEqual(room.channel.members.get('ann'), me);
      assert.equal(room.channel.members.get('bob'), null);
    });

    test('P31 P32: tells of members that come and go', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const his = await join(t, name, bob);
      assert.deepEqual(his.snapshot, {
        count: 2,
        me: { id: 'bob', info: { name: 'Bob' } },
        all: { ann: { name: 'Ann' }, bob: { name: 'Bob' } },
      });
      assert.deepEqual(await hers.room.next(), {
        event: 'pusher:member_added',
        data: { id: 'bob', info: { name: 'Bob' } },
      });
      const members = [];
      hers.room.channel.members.each((member) => members.push(member.id));
      assert.deepEqual(members.sort(), ['ann', 'bob']);
      assert.equal(hers.room.channel.members.count, 2);
      await hearsOnlyMarker(his.room); // he did not hear of himself

      his.client.pusher.unsubscribe(name);
      assert.deepEqual((await hers.room.next()).event, 'marker');
      assert.deepEqual(await hers.room.next(), {
        event: 'pusher:member_removed',
        data: { id: 'bob', info: { name: 'Bob' } },
      });
      assert.equal(hers.room.channel.members.count, 1);
      assert.equal(hers.room.channel.members.get('bob'), null);
    });

    test('P32: takes two tabs of one user for one member, until the last one leaves the channel', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const first = await join(t, name, bob);
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      const second = await join(t, name, bob);
      assert.equal(second.snapshot.count, 2);
      await hearsOnlyMarker(hers.room);
      assert.equal((await first.room.next()).event, 'marker');
      assert.equal((await second.room.next()).event, 'marker');

      first.client.pusher.unsubscribe(name);
      await first.client.heard();
      await hearsOnlyMarker(hers.room);
      assert.equal(hers.room.channel.members.count, 2);

      second.client.pusher.unsubscribe(name);
      assert.equal((await hers.room.next()).event, 'pusher:member_removed');
      assert.equal(hers.room.channel.members.count, 1);
    });

    test('P32: takes two tabs of one user for one member, until the last one is closed', async (t) => {
      const name = fresh('presence-room');
      const tabs = fresh('tabs'); // its subscription count says when the broker has seen a tab go
      const server = world.broker.sdk(counted);
      const hers = await join(t, name, ann, { app: counted });
      const first = await join(t, name, bob, { app: counted });
      const second = await join(t, name, bob, { app: counted });
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      await first.client.subscribe(tabs).succeeded();
      const witness = hers.client.subscribe(tabs);
      await witness.succeeded();
      assert.deepEqual((await witness.next()).data, { subscription_count: 2 });

      first.client.leave();
      assert.deepEqual((await witness.next()).data, { subscription_count: 1 });
      await hearsOnlyMarker(hers.room, server);
      second.client.leave();
      assert.deepEqual(await hers.room.next(), {
        event: 'pusher:member_removed',
        data: { id: 'bob', info: { name: 'Bob' } },
      });
    });

    test('P32: loses a member whose process dies', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const { key, secret } = shop.keys[0];
      const process = spawn(
        globalThis.process.execPath,
        [
          fileURLToPath(new URL('../support/member_process.js', import.meta.url)),
          world.library,
          key,
          JSON.stringify(world.broker.clientOptions()),
          name,
          JSON.stringify({ appId: shop.id, key, secret }),
          JSON.stringify(bob),
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      t.after(() => process.kill('SIGKILL'));
      await within(once(process.stdout, 'data'), 'the other process to join');
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      process.kill('SIGKILL');
      assert.equal((await hers.room.next()).event, 'pusher:member_removed');
    });

    test('P32: loses a member whose connections are terminated', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const his = await join(t, name, bob, { user: { id: 'bob' } });
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      await his.client.signIn();
      await world.server.terminateUserConnections('bob');
      assert.equal((await hers.room.next()).event, 'pusher:member_removed');
    });

    test('P32: announces a member again that has left and comes back', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const his = await join(t, name, bob);
      his.client.pusher.unsubscribe(name);
      const again = his.client.subscribe(name);
      assert.equal((await again.succeeded()).count, 2);
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      assert.equal((await hers.room.next()).event, 'pusher:member_removed');
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      await hearsOnlyMarker(hers.room);
    });

    test('P33: takes the user 10 and the user "10" for one', async (t) => {
      const name = fresh('presence-room');
      const number = await join(t, name, { user_id: 10, user_info: { name: 'Ten' } });
      const text = await join(t, name, { user_id: '10', user_info: { name: 'Ten' } });
      assert.deepEqual(number.snapshot.all, { 10: { name: 'Ten' } });
      assert.deepEqual(text.snapshot, {
        count: 1,
        me: { id: '10', info: { name: 'Ten' } },
        all: { 10: { name: 'Ten' } },
      });
      await hearsOnlyMarker(number.room);
      const { users } = await (await world.server.get({ path: `/channels/${name}/users` })).json();
      assert.deepEqual(users, [{ id: '10' }]);
    });

    test('P31: passes on what is known of a member unchanged, and shows {} where nothing is', async (t) => {
      const name = fresh('presence-room');
      const info = { name: 'Zoë 日本 🎉', nested: { list: [1, null, 'x"\\'] } };
      await join(t, name, { user_id: 'zoë@home', user_info: info });
      const { snapshot } = await join(t, name, { user_id: 'nameless' });
      assert.deepEqual(snapshot.all, { 'zoë@home': info, nameless: {} });
      assert.deepEqual(snapshot.me, { id: 'nameless', info: {} });
    });

    test('P35: refuses a member that is too long, too large or malformed', async (t) => {
      const refused = async (member, message) => {
        const client = await world.connect(t, { member });
        const refusal = await client.subscribe(fresh('presence-room')).refused();
        assert.deepEqual([refusal.type, refusal.status], ['InvalidRequest', 400]);
        assert.match(refusal.error, message);
        assert.equal((await client.errors.next()).message, refusal.error);
      };
      await refused({ user_id: 'x'.repeat(129) }, /exceeds the maximum/);
      await refused({ user_id: 'x', user_info: { name: 'x'.repeat(1_100) } }, /exceeds the maximum/);
      await refused(
        { user_id: 'x', user_info: 'Ann' },
        /^user_info supplied to presence subscription is invalid - if supplied it must be a type of hash$/,
      );
      await refused({ user_info: {} }, /^Missing parameter: channel_data.user_id$/);
      await refused({ user_id: '' }, /^Missing parameter: channel_data.user_id$/);
      const largest = { user_id: 'x'.repeat(128), user_info: { name: 'x'.repeat(1_000) } };
      assert.equal((await join(t, fresh('presence-room'), largest)).snapshot.count, 1);
    });

    test('P34: is full at its limit of users, not of connections', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann, { app: small });
      await join(t, name, bob, { app: small });
      const carl = await world.connect(t, { app: small, member: { user_id: 'carl' } });
      const refusal = await carl.subscribe(name).refused();
      assert.deepEqual([refusal.type, refusal.status], ['LimitReached', 403]);
      assert.match(refusal.error, /^Presence channel presence-room-\d+ is full \(maximum 2 members\)$/);
      await join(t, name, bob, { app: small });
      assert.equal((await hers.room.next()).event, 'pusher:member_added');
      await hearsOnlyMarker(hers.room, world.broker.sdk(small));
    });

    test('P36: knows a signed-in user without being told', async (t) => {
      const name = fresh('presence-room');
      const hers = await join(t, name, ann);
      const his = await world.connect(t, { user: { id: 'bob', user_info: { name: 'Bob, signed in' } } });
      await his.signIn();
      const room = his.subscribe(name);
      assert.deepEqual((await room.succeeded()).me, { id: 'bob', info: { name: 'Bob, signed in' } });
      assert.deepEqual(await hers.room.next(), {
        event: 'pusher:member_added',
        data: { id: 'bob', info: { name: 'Bob, signed in' } },
      });
    });

    test('P36: believes the permit before the sign-in', async (t) => {
      const name = fresh('presence-room');
      const client = await world.connect(t, { member: ann, user: { id: 'bob' } });
      await client.signIn();
      assert.deepEqual((await client.subscribe(name).succeeded()).all, { ann: { name: 'Ann' } });
    });

    test('P27: refuses whoever neither the permit nor a sign-in names', async (t) => {
      const client = await world.connect(t);
      const name = fresh('presence-room');
      client.say('pusher:subscribe', { channel: name, ...world.server.authorizeChannel(client.socketId, name) });
      assert.deepEqual(await client.errors.next(), { code: null, message: 'Missing parameter: data.channel_data' });
    });
  });
}
