import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { closed, quiet, shop } from '../support/apps.js';
import { BackEnd } from '../support/back_end.js';
import { Broker } from '../support/broker.js';
import { openBrowser, Tab } from '../support/browser.js';
import { fresh } from '../support/world.js';

// A client whose first attempt finds nobody listening makes the next one 15 seconds later.
const PATIENCE_MS = 45_000;

/** What pusher-js does in a browser. `build` names the script: `pusher-js-8` or `pusher-js-7`. */
export function browser(build) {
  describe(`${build} in Chromium`, () => {
    let chromium;
    let broker;
    let backEnd;
    let server;
    before(async () => {
      [chromium, broker] = await Promise.all([openBrowser(), Broker.start()]);
      backEnd = await BackEnd.start(broker);
      server = broker.sdk(shop);
    });
    after(async () => {
      await chromium?.close();
      await backEnd?.stop();
      await broker?.end();
    });

    /** A browser window of its own, with its own storage. */
    const open = async (t) => {
      const context = await chromium.newContext();
      t.after(() => context.close());
      return context;
    };
    /** A connected tab in a window of its own, or in `context`. */
    const tab = async (t, about = {}, { context, script = build } = {}) =>
      (await Tab.open(t, context ?? (await open(t)), backEnd, broker, script, about)).connected();

    test('P1 P4 P17: connects from a page of another origin', async (t) => {
      const ann = await tab(t);
      assert.equal(await ann.state(), 'connected');
      assert.match(await ann.socketId(), /^\d+\.\d+$/);
    });

    test('P22 P39 P77: receives on a public channel what was published', async (t) => {
      const name = fresh('orders');
      const ann = await tab(t);
      assert.deepEqual(await ann.enter(name), {});
      for (const data of [{ id: 7 }, 'Zoë 日本 🎉', `x${'日'.repeat(3_413)}`]) {
        await server.trigger(name, 'placed', data);
        assert.deepEqual(await ann.next(name), { event: 'placed', data });
      }
    });

    test('P79: is left out when the publisher names it', async (t) => {
      const name = fresh('orders');
      const ann = await tab(t);
      await ann.enter(name);
      await server.trigger(name, 'edited', 1, { socket_id: await ann.socketId() });
      await server.trigger(name, 'marker', 2);
      assert.deepEqual(await ann.next(name), { event: 'marker', data: 2 });
    });

    test('P25 P26: hears nothing of a channel it has left, until it is back', async (t) => {
      const name = fresh('orders');
      const ann = await tab(t);
      await ann.enter(name);
      await ann.leaveChannel(name);
      await ann.do(() => window.client.heard());
      await server.trigger(name, 'missed', 1);
      await ann.enter(name);
      await server.trigger(name, 'marker', 2);
      assert.equal((await ann.nextFrame()).event, 'pusher_internal:subscription_succeeded');
      assert.deepEqual(await ann.nextFrame(), { event: 'marker', channel: name, data: 2 });
    });

    test('P40: enters a private channel with a permit from its own server', async (t) => {
      const name = fresh('private-orders');
      const ann = await tab(t);
      await ann.enter(name);
      await server.trigger(name, 'placed', { id: 7 });
      assert.deepEqual(await ann.next(name), { event: 'placed', data: { id: 7 } });
    });

    test('P27: learns on the channel that a permit is worth nothing', async (t) => {
      const ann = await tab(t);
      const refusal = await ann.enterInVain(fresh('private-forged'));
      assert.deepEqual([refusal.type, refusal.status], ['AuthError', 401]);
      assert.match(refusal.error, /^Invalid signature/);
      assert.equal((await ann.nextError()).code, null);
      await ann.enter(fresh('private-orders'));
    });

    test('P31 P32: two tabs of one window are one member', async (t) => {
      const name = fresh('presence-room');
      const ann = await tab(t, { who: 'ann' });
      assert.deepEqual(await ann.enter(name), {
        count: 1,
        me: { id: 'ann', info: { name: 'ann' } },
        all: { ann: { name: 'ann' } },
      });
      const window = await open(t);
      const first = await tab(t, { who: 'bob' }, { context: window });
      assert.equal((await first.enter(name)).count, 2);
      assert.deepEqual(await ann.next(name), {
        event: 'pusher:member_added',
        data: { id: 'bob', info: { name: 'bob' } },
      });
      const second = await tab(t, { who: 'bob' }, { context: window });
      const bothMembers = {
        count: 2,
        me: { id: 'bob', info: { name: 'bob' } },
        all: { ann: { name: 'ann' }, bob: { name: 'bob' } },
      };
      assert.deepEqual(await second.enter(name), bothMembers);
      await server.trigger(name, 'marker', 1);
      for (const one of [ann, first, second]) assert.deepEqual(await one.next(name), { event: 'marker', data: 1 });

      await first.leaveChannel(name);
      await first.do(() => window.client.heard());
      await server.trigger(name, 'marker', 2);
      assert.deepEqual(await ann.next(name), { event: 'marker', data: 2 });
      await second.close();
      assert.deepEqual(await ann.next(name), {
        event: 'pusher:member_removed',
        data: { id: 'bob', info: { name: 'bob' } },
      });
    });

    test('P66 P67 P68: sends client events to others, with its name on a presence channel', async (t) => {
      const [chat, room] = [fresh('private-chat'), fresh('presence-chat')];
      const [ann, bob] = [await tab(t, { who: 'ann' }), await tab(t, { who: 'bob' })];
      for (const name of [chat, room]) {
        await bob.enter(name);
        await ann.enter(name);
      }
      await bob.watch(room, 'client-typed');
      await ann.trigger(chat, 'client-typed', { text: 'hello' });
      await ann.trigger(room, 'client-typed', 'hello');
      assert.deepEqual(await bob.next(chat), { event: 'client-typed', data: { text: 'hello' } });
      assert.deepEqual(await bob.nextWatched(), { data: 'hello', user_id: 'ann' });
      await server.trigger([chat, room], 'marker', 1);
      assert.deepEqual(await ann.next(chat), { event: 'marker', data: 1 });
      assert.deepEqual(await ann.next(room), { event: 'marker', data: 1 });
    });

    test('P65: is told when client events are not allowed', async (t) => {
      const ann = await tab(t, { key: quiet.keys[0].key });
      const name = fresh('news');
      await ann.enter(name);
      await ann.trigger(name, 'client-typed', 1);
      const { code, message } = await ann.nextError();
      assert.equal(code, null);
      assert.match(message, /^To send client events, you must enable this feature/);
    });

    test('P50 P54 P58: signs in, gets what is sent to its user, and can be thrown out', async (t) => {
      const who = fresh('ann').replace('-', '');
      const [first, second] = [await tab(t, { who }), await tab(t, { who })];
      await first.signIn();
      await second.signIn();
      await server.sendToUser(who, 'mail', { subject: 'hello' });
      for (const one of [first, second]) {
        assert.deepEqual(await one.nextUserEvent(), { event: 'mail', data: { subject: 'hello' } });
      }
      await server.terminateUserConnections(who);
      for (const one of [first, second]) {
        await one.reaches('disconnected');
        assert.equal((await one.error(4009)).message, 'You got disconnected by the app.');
      }
    });

    test('P45: decrypts with the build for encryption', async (t) => {
      const name = fresh('private-encrypted-orders');
      const ann = await tab(t, {}, { script: `${build}-with-encryption` });
      await ann.enter(name);
      await server.trigger(name, 'paid', { card: 'Zoë' });
      await server.triggerBatch([{ channel: name, name: 'paid', data: { card: 'Max' } }]);
      assert.deepEqual(await ann.next(name), { event: 'paid', data: { card: 'Zoë' } });
      assert.deepEqual(await ann.next(name), { event: 'paid', data: { card: 'Max' } });
    });

    test('P28 P29: hears of a cache miss, or the last event', async (t) => {
      const name = fresh('cache-prices');
      const ann = await tab(t);
      await ann.enter(name);
      assert.deepEqual(await ann.next(name), { event: 'pusher:cache_miss', data: {} });
      await server.trigger(name, 'price', 1);
      const bob = await tab(t);
      await bob.enter(name);
      assert.deepEqual(await bob.next(name), { event: 'price', data: 1 });
    });

    test('P3: gives up with an unknown key and with a disabled app', async (t) => {
      for (const [key, code] of [
        ['nobody', 4001],
        [closed.keys[0].key, 4003],
      ]) {
        const ann = await Tab.open(t, await open(t), backEnd, broker, build, { key });
        await ann.reaches('disconnected');
        assert.equal((await ann.nextError()).code, code);
      }
    });
  });

  describe(`${build} in Chromium, when the broker restarts`, { concurrency: true }, () => {
    for (const [title, end] of [
      ['P11: is sent away with 4200 and resumes with the next process', 'stop'],
      ['P17: resumes with the next process after a crash', 'kill'],
    ]) {
      test(title, async (t) => {
        const [chromium, broker] = await Promise.all([openBrowser(), Broker.start()]);
        t.after(() => broker.end());
        t.after(() => chromium.close());
        const backEnd = await BackEnd.start(broker);
        t.after(() => backEnd.stop());
        const server = broker.sdk(shop);
        const ann = await Tab.open(t, await chromium.newContext(), backEnd, broker, build);
        await ann.connected();
        const names = ['news', 'private-news', 'presence-room'];
        for (const name of names) await ann.enter(name);
        await ann.signIn();
        const before = await ann.socketId();

        await broker[end]();
        if (end === 'stop') await ann.error(4200);
        await broker.startAgain();
        await ann.connected(PATIENCE_MS);
        assert.notEqual(await ann.socketId(), before);
        for (const name of names) {
          await ann.find(name, 'pusher:subscription_succeeded');
          await server.trigger(name, 'after', 1);
          assert.deepEqual(await ann.next(name), { event: 'after', data: 1 });
        }
        await ann.signedInAgain();
        await server.sendToUser('ann', 'after', 2);
        assert.deepEqual(await ann.nextUserEvent(), { event: 'after', data: 2 });
      });
    }
  });
}
