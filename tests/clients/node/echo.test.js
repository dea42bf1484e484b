// Laravel Echo with the `pusher` broadcaster, set up as a Laravel app sets it up: bearer tokens, its own paths
// for permits, event classes of PHP, and the official server SDK in the place of Laravel's.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import { shop } from './support/apps.js';
import { BackEnd } from './support/back_end.js';
import { Broker } from './support/broker.js';
import { Inbox, within } from './support/inbox.js';
import { fresh } from './support/world.js';

const broker = await Broker.start();
const backEnd = await BackEnd.start(broker);
const laravel = broker.sdk(shop);
after(async () => {
  await backEnd.stop();
  await broker.end();
});

/** Echo in the browser of `who`, connected. */
async function connect(t, who = 'ann') {
  const echo = new Echo({
    broadcaster: 'pusher',
    Pusher,
    key: shop.keys[0].key,
    ...broker.clientOptions(),
    authEndpoint: `${backEnd.url}/broadcasting/auth`,
    auth: { headers: {} },
    userAuthentication: { endpoint: `${backEnd.url}/broadcasting/user-auth`, headers: {} },
    bearerToken: who,
  });
  t.after(() => echo.disconnect());
  const connected = new Promise((resolve) => echo.connector.pusher.connection.bind('connected', resolve));
  await within(connected, 'Echo to connect');
  return echo;
}

/** Waits until a channel has been entered. To be called at once: Echo does not say it a second time. */
const entered = (channel) =>
  within(new Promise((resolve) => channel.subscribed(resolve)), `the success of ${channel.name}`);

/** An inbox, and a callback that fills it. */
function listener(name) {
  const inbox = new Inbox(name);
  return [inbox, (data) => inbox.put(data)];
}

describe('Laravel Echo', () => {
  test('P17: connects, and knows its socket id and state', async (t) => {
    const echo = await connect(t);
    assert.match(echo.socketId(), /^\d+\.\d+$/);
    assert.equal(echo.connectionStatus(), 'connected');
  });

  test('P78: listens on a channel to events of its namespace and to others', async (t) => {
    const name = fresh('orders');
    const echo = await connect(t);
    const [shipped, onShipped] = listener('OrderShipped');
    const [named, onNamed] = listener('.order.paid');
    const [foreign, onForeign] = listener('\\Other\\Thing');
    const [all, onAll] = listener('all events');
    const channel = echo
      .channel(name)
      .listen('OrderShipped', onShipped)
      .listen('.order.paid', onNamed)
      .listen('\\Other\\Thing', onForeign)
      .listenToAll((event) => onAll(event));
    await entered(channel);
    await laravel.trigger(name, 'App\\Events\\OrderShipped', { order: { id: 7 } });
    await laravel.trigger(name, 'order.paid', { amount: 12.5 });
    await laravel.trigger(name, 'Other\\Thing', []);
    assert.deepEqual(await shipped.next(), { order: { id: 7 } });
    assert.deepEqual(await named.next(), { amount: 12.5 });
    assert.deepEqual(await foreign.next(), []);
    assert.deepEqual(
      [await all.next(), await all.next(), await all.next()],
      ['OrderShipped', '.order.paid', '.Other\\Thing'],
    );
  });

  test('P79: is left out by broadcast()->toOthers()', async (t) => {
    const name = fresh('orders');
    const [ann, bob] = [await connect(t, 'ann'), await connect(t, 'bob')];
    const [hers, onHers] = listener('hers');
    const [his, onHis] = listener('his');
    await entered(ann.channel(name).listen('.edited', onHers));
    await entered(bob.channel(name).listen('.edited', onHis));
    await laravel.trigger(name, 'edited', 1, { socket_id: ann.socketId() });
    await laravel.trigger(name, 'edited', 2);
    assert.equal(await his.next(), 1);
    assert.equal(await his.next(), 2);
    assert.equal(await hers.next(), 2);
  });

  test('P40: listens on a private channel with a permit for its bearer token', async (t) => {
    const name = fresh('orders');
    const echo = await connect(t);
    const [shipped, onShipped] = listener('OrderShipped');
    await entered(echo.private(name).listen('OrderShipped', onShipped));
    await laravel.trigger(`private-${name}`, 'App\\Events\\OrderShipped', { id: 7 });
    assert.deepEqual(await shipped.next(), { id: 7 });
  });

  test('P40: gets the notifications of its user', async (t) => {
    const echo = await connect(t);
    const [notifications, onNotification] = listener('the notifications');
    await entered(echo.private('App.Models.User.1').notification(onNotification));
    await laravel.trigger(
      'private-App.Models.User.1',
      'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated',
      { type: 'InvoicePaid' },
    );
    assert.deepEqual(await notifications.next(), { type: 'InvoicePaid' });
  });

  test('P66 P67: whispers to others on a private channel', async (t) => {
    const name = fresh('chat');
    const [ann, bob] = [await connect(t, 'ann'), await connect(t, 'bob')];
    const [hers, onHers] = listener('whispers to ann');
    const [his, onHis] = listener('whispers to bob');
    const channel = ann.private(name).listenForWhisper('typing', onHers);
    await entered(channel);
    await entered(bob.private(name).listenForWhisper('typing', onHis));
    channel.whisper('typing', { name: 'Ann' });
    assert.deepEqual(await his.next(), { name: 'Ann' });
    bob.private(name).whisper('typing', { name: 'Bob' });
    assert.deepEqual(await hers.next(), { name: 'Bob' }); // and not her own before it
  });

  test('P31 P32 P66: knows who is here, who joins and who leaves, and whispers to them', async (t) => {
    const name = fresh('room');
    const [ann, bob] = [await connect(t, 'ann'), await connect(t, 'bob')];
    const [here, onHere] = listener('here');
    const [joining, onJoining] = listener('joining');
    const [leaving, onLeaving] = listener('leaving');
    const [whispers, onWhisper] = listener('whispers');
    const [posts, onPost] = listener('posts');
    ann
      .join(name)
      .here((members) => onHere([...members]))
      .joining(onJoining)
      .leaving(onLeaving)
      .listenForWhisper('typing', onWhisper)
      .listen('.posted', onPost);
    assert.deepEqual(await here.next(), [{ name: 'ann' }]);

    const [hereToo, onHereToo] = listener('here, at bob');
    bob.join(name).here((members) => onHereToo([...members]));
    assert.deepEqual((await hereToo.next()).map((member) => member.name).sort(), ['ann', 'bob']);
    assert.deepEqual(await joining.next(), { name: 'bob' });
    bob.join(name).whisper('typing', { what: 'hello' });
    assert.deepEqual(await whispers.next(), { what: 'hello' });
    await laravel.trigger(`presence-${name}`, 'posted', { id: 1 });
    assert.deepEqual(await posts.next(), { id: 1 });
    bob.leave(name);
    assert.deepEqual(await leaving.next(), { name: 'bob' });
  });

  test('P45: listens on an encrypted channel', async (t) => {
    const name = fresh('orders');
    const echo = await connect(t);
    const [paid, onPaid] = listener('OrderPaid');
    await entered(echo.encryptedPrivate(name).listen('OrderPaid', onPaid));
    await laravel.trigger(`private-encrypted-${name}`, 'App\\Events\\OrderPaid', { card: 'Zoë' });
    assert.deepEqual(await paid.next(), { card: 'Zoë' });
  });

  test('P27: hands a refusal to the error callback of the channel, whoever refused', async (t) => {
    const echo = await connect(t);
    const [byLaravel, onForbidden] = listener('the refusal of Laravel');
    echo.private(fresh('forbidden')).error(onForbidden);
    assert.equal((await byLaravel.next()).status, 403);
    const [byBroker, onRefused] = listener('the refusals of the broker');
    echo.private(fresh('forged')).error(onRefused);
    echo.join(fresh('forged')).error(onRefused);
    echo.encryptedPrivate(fresh('forged')).error(onRefused);
    for (let refusal = 0; refusal < 3; refusal++) {
      const { type, error, status } = await byBroker.next();
      assert.deepEqual([type, status], ['AuthError', 401]);
      assert.match(error, /^Invalid signature/);
    }
    echo.channel('two words').error(onRefused);
    assert.equal((await byBroker.next()).status, 400);
  });

  test('P25: leaves channels of every kind at once', async (t) => {
    const name = fresh('orders');
    const echo = await connect(t);
    const channels = [echo.channel(name), echo.private(name), echo.join(name), echo.encryptedPrivate(name)];
    await Promise.all(channels.map(entered));
    const names = [name, `private-${name}`, `presence-${name}`, `private-encrypted-${name}`];
    echo.leave(name);
    const pong = new Promise((resolve) => echo.connector.pusher.connection.bind('message', resolve));
    echo.connector.pusher.send_event('pusher:ping', {});
    assert.equal((await within(pong, 'pusher:pong')).event, 'pusher:pong');
    for (const channel of names) {
      const answer = await laravel.get({ path: `/channels/${channel}` });
      assert.deepEqual(await answer.json(), { occupied: false }, channel);
    }
  });

  test('P26: stops listening to one event and goes on with others', async (t) => {
    const name = fresh('orders');
    const echo = await connect(t);
    const [first, onFirst] = listener('first');
    const [second, onSecond] = listener('second');
    const channel = echo.channel(name).listen('.a', onFirst).listen('.b', onSecond);
    await entered(channel);
    channel.stopListening('.a', onFirst);
    await laravel.trigger(name, 'a', 1);
    await laravel.trigger(name, 'b', 2);
    assert.equal(await second.next(), 2);
    channel.listen('.a', onFirst);
    await laravel.trigger(name, 'a', 3);
    assert.equal(await first.next(), 3);
  });

  test('P50 P54: signs in and gets what is sent to its user', async (t) => {
    const echo = await connect(t, 'carl');
    const { connection, user } = echo.connector.pusher;
    const [mail, onMail] = listener('mail');
    user.bind('mail', onMail);
    const ready = new Promise((resolve) =>
      connection.bind('message', ({ event, channel }) => {
        if (event === 'pusher_internal:subscription_succeeded' && channel === '#server-to-user-carl') resolve();
      }),
    );
    echo.connector.signin();
    await within(ready, 'the sign-in');
    await laravel.sendToUser('carl', 'mail', { subject: 'hello' });
    assert.deepEqual(await mail.next(), { subject: 'hello' });
  });

  test('P3: is disconnected when its key is unknown', async (t) => {
    const echo = new Echo({ broadcaster: 'pusher', Pusher, key: 'nobody', ...broker.clientOptions() });
    t.after(() => echo.disconnect());
    const [statuses, onStatus] = listener('the states of Echo');
    echo.connector.onConnectionChange(onStatus);
    assert.equal(await statuses.find((status) => status !== 'connecting'), 'disconnected');
  });
});
