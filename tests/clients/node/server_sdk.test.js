// The official server SDK for Node: every call it has, and what the broker refuses it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { after, describe, mock, test } from 'node:test';
import PusherServer from 'pusher';
import { closed, shop } from './support/apps.js';
import { within } from './support/inbox.js';
import { fresh, World } from './support/world.js';

const world = await World.with('pusher-js');
after(() => world.broker.end());
const { broker, server } = world;

/** The JSON of a successful answer. */
async function json(answer) {
  const response = await answer;
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  return response.json();
}

const get = (path, params) => json(server.get({ path, params }));
const post = (path, body) => json(server.post({ path, body }));

/** That a call is refused with this status and this text, which ends with a newline. */
async function refused(call, status, text) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof PusherServer.RequestError, `${error}`);
    assert.equal(error.status, status);
    assert.match(error.body, text);
    assert.match(error.body, /[^\n]\n$/);
    return true;
  });
}

/** A subscription of a connected client to `name`, and the client. */
async function subscriber(t, name, about) {
  const client = await world.connect(t, about);
  const subscription = client.subscribe(name);
  await subscription.succeeded();
  return { client, subscription };
}

describe('trigger', () => {
  test('P74 P88: publishes to one channel and answers {}', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    assert.deepEqual(await json(server.trigger(name, 'placed', { id: 7 })), {});
    assert.deepEqual(await subscription.next(), { event: 'placed', data: { id: 7 } });
  });

  test('P88: works for an SDK made from a URL', async (t) => {
    const { key, secret } = shop.keys[0];
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    const byUrl = PusherServer.forURL(`http://${key}:${secret}@127.0.0.1:${broker.port}/apps/${shop.id}`);
    assert.deepEqual(await json(byUrl.trigger(name, 'placed', 1)), {});
    assert.deepEqual(await subscription.next(), { event: 'placed', data: 1 });
  });

  test('P76: publishes to 100 channels, delivering once to a channel named twice', async (t) => {
    const names = Array.from({ length: 100 }, () => fresh('orders'));
    const client = await world.connect(t);
    const subscriptions = names.map((name) => client.subscribe(name));
    for (const subscription of subscriptions) await subscription.succeeded();
    assert.deepEqual(await json(server.trigger(names, 'placed', 1)), {});
    for (const subscription of subscriptions) assert.deepEqual(await subscription.next(), { event: 'placed', data: 1 });

    await server.trigger([names[0], names[1], names[0]], 'twice', 2);
    await server.trigger(names[0], 'marker', 3);
    assert.deepEqual(await subscriptions[0].next(), { event: 'twice', data: 2 });
    assert.deepEqual(await subscriptions[0].next(), { event: 'marker', data: 3 });
  });

  test('P76: takes `channel` as well as `channels`, and refuses none or 101', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    assert.deepEqual(await post('/events', { name: 'placed', channel: name, data: '1' }), {});
    assert.deepEqual(await subscription.next(), { event: 'placed', data: 1 });
    await refused(post('/events', { name: 'e', data: '1', channels: [] }), 400, /./);
    await refused(post('/events', { name: 'e', data: '1' }), 400, /^Missing required parameter: channels/);
    const tooMany = Array.from({ length: 101 }, (_, i) => `c${i}`);
    await refused(
      post('/events', { name: 'e', data: '1', channels: tooMany }),
      400,
      /^Too many channels \(101 > 100\)/,
    );
  });

  test('P79: leaves out a connection, ignores an unknown one and refuses a malformed one', async (t) => {
    const name = fresh('orders');
    const { client, subscription } = await subscriber(t, name);
    await server.trigger(name, 'edited', 1, { socket_id: client.socketId });
    assert.deepEqual(await json(server.trigger(name, 'edited', 2, { socket_id: '1.1' })), {});
    assert.deepEqual(await subscription.next(), { event: 'edited', data: 2 });
    for (const socket_id of ['abc', '1', '1.2.3']) {
      await refused(
        post('/events', { name: 'e', channels: [name], data: '1', socket_id }),
        400,
        /^Invalid socket_id '/,
      );
    }
  });

  test('P70 P80 P85: reports counts where they apply', async (t) => {
    const [room, orders, nobody] = [fresh('presence-room'), fresh('orders'), fresh('orders')];
    await subscriber(t, room, { member: { user_id: 'ann' } });
    await subscriber(t, room, { member: { user_id: 'ann' } });
    await subscriber(t, room, { member: { user_id: 'bob' } });
    await subscriber(t, orders);
    const both = { info: 'user_count,subscription_count' };
    assert.deepEqual(await json(server.trigger([room, orders, nobody, orders], 'e', 1, both)), {
      channels: {
        [room]: { user_count: 2, subscription_count: 3 },
        [orders]: { subscription_count: 1 },
        [nobody]: { subscription_count: 0 },
      },
    });
    assert.deepEqual(await json(server.trigger([room, orders], 'e', 1, { info: 'user_count' })), {
      channels: { [room]: { user_count: 2 }, [orders]: {} },
    });
    await refused(
      server.trigger(room, 'e', 1, { info: 'weather' }),
      400,
      /^info should be a comma separated list of attributes/,
    );
  });

  test('P77: takes 10 240 bytes, not one more, counted as bytes', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    const tooLarge = /^The data content of this event exceeds the allowed maximum \(10240 bytes\)/;
    await server.trigger(name, 'large', 'x'.repeat(10_240));
    assert.equal((await subscription.next()).data.length, 10_240);
    await refused(server.trigger(name, 'large', 'x'.repeat(10_241)), 413, tooLarge);
    await refused(server.trigger(name, 'large', `xx${'日'.repeat(3_413)}`), 413, tooLarge);
    await refused(server.triggerBatch([{ channel: name, name: 'large', data: 'x'.repeat(10_241) }]), 413, tooLarge);
    await server.trigger(name, 'marker', 1);
    assert.deepEqual(await subscription.next(), { event: 'marker', data: 1 });
  });

  test('P78: takes event names with backslashes, dots and any script, not the names of the protocol', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    for (const event of [
      'App\\Events\\OrderShipped',
      'order.shipped',
      'bestellt für 日本',
      'client-placed',
      'n'.repeat(200),
    ]) {
      await server.trigger(name, event, 1);
      assert.deepEqual(await subscription.next(), { event, data: 1 });
    }
    for (const event of ['pusher:placed', 'pusher_internal:placed']) {
      await refused(server.trigger(name, event, 1), 400, new RegExp(`^Invalid event name '${event}'`));
    }
    await refused(
      post('/events', { name: 'n'.repeat(201), channels: [name], data: '1' }),
      400,
      /^Event name too long \(201 > 200\)/,
    );
  });

  test('P21 P75: refuses names of channels that are not allowed, and publishes to none', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    for (const bad of ['two words', 'a:b', 'a/b', '#users', '', 'a'.repeat(165), 'zoë']) {
      await refused(post('/events', { name: 'e', channels: [name, bad], data: '1' }), 400, /^Invalid channel name '/);
    }
    await refused(server.trigger([name, 'a'.repeat(165)], 'e', 1), 400, /^Invalid channel name '/);
    await server.trigger(name, 'marker', 1);
    assert.deepEqual(await subscription.next(), { event: 'marker', data: 1 });
    await server.trigger('a'.repeat(164), 'e', 1);
  });

  test('P75: refuses bodies that lack something', async () => {
    await refused(post('/events', { channels: ['a'], data: '1' }), 400, /^Missing required parameter: name/);
    await refused(post('/events', { name: 'e', channels: ['a'] }), 400, /^Missing required parameter: data/);
    await refused(
      post('/events', { name: 7, channels: ['a'], data: '1' }),
      400,
      /^Expected name parameter to be a string/,
    );
    await refused(
      post('/events', { name: 'e', channels: 'a', data: '1' }),
      400,
      /^Expected channels parameter to be an array of strings/,
    );
    await refused(post('/events', ['not', 'an', 'object']), 400, /^Invalid JSON provided/);
  });

  test('P45: encrypts for an encrypted channel', async (t) => {
    const name = fresh('private-encrypted-orders');
    const { subscription } = await subscriber(t, name);
    assert.deepEqual(await json(server.trigger(name, 'paid', { card: 'Zoë' })), {});
    assert.deepEqual(await subscription.next(), { event: 'paid', data: { card: 'Zoë' } });
  });
});

describe('triggerBatch', () => {
  test('P74 P81: publishes ten events in order and answers {}', async (t) => {
    const name = fresh('orders');
    const { client, subscription } = await subscriber(t, name);
    const batch = Array.from({ length: 10 }, (_, i) => ({ channel: name, name: 'n', data: { i } }));
    batch[4].socket_id = client.socketId;
    assert.deepEqual(await json(server.triggerBatch(batch)), {});
    for (const i of [0, 1, 2, 3, 5, 6, 7, 8, 9])
      assert.deepEqual(await subscription.next(), { event: 'n', data: { i } });
  });

  test('P81 P85: reports counts in the places of the events that asked', async (t) => {
    const [room, orders] = [fresh('presence-room'), fresh('orders')];
    await subscriber(t, room, { member: { user_id: 'ann' } });
    await subscriber(t, orders);
    const answer = await json(
      server.triggerBatch([
        { channel: orders, name: 'e', data: '1' },
        { channel: room, name: 'e', data: '2', info: 'user_count,subscription_count' },
        { channel: orders, name: 'e', data: '3', info: 'subscription_count' },
        { channel: orders, name: 'e', data: '4', info: 'user_count' },
      ]),
    );
    assert.deepEqual(answer, { batch: [{}, { user_count: 1, subscription_count: 1 }, { subscription_count: 1 }, {}] });
  });

  test('P81: refuses eleven events, and one without a channel, and publishes nothing of them', async (t) => {
    const name = fresh('orders');
    const { subscription } = await subscriber(t, name);
    const event = () => ({ channel: name, name: 'e', data: '1' });
    await refused(server.triggerBatch(Array.from({ length: 11 }, event)), 400, /^Batch too large \(11 > 10\)/);
    await refused(
      post('/batch_events', { batch: [event(), { channels: [name], name: 'e', data: '1' }] }),
      400,
      /^Missing required parameter: channel\n/,
    );
    await refused(
      server.triggerBatch([event(), { channel: 'two words', name: 'e', data: '1' }]),
      400,
      /^Invalid channel name/,
    );
    assert.deepEqual(await json(server.triggerBatch([])), {});
    await server.trigger(name, 'marker', 1);
    assert.deepEqual(await subscription.next(), { event: 'marker', data: 1 });
  });
});

describe('users', () => {
  test('P54 P74: sendToUser reaches the user and answers {}', async (t) => {
    const ann = await world.connect(t, { user: { id: 'ann' } });
    await ann.signIn();
    assert.deepEqual(await json(server.sendToUser('ann', 'mail', { subject: 'hello' })), {});
    assert.deepEqual(await ann.userEvents.next(), { event: 'mail', data: { subject: 'hello' } });
    assert.deepEqual(await json(server.sendToUser('nobody', 'mail', 1)), {});
  });

  test('P58 P59: terminateUserConnections ends them and answers {}, for nobody as well', async (t) => {
    const ann = await world.connect(t, { user: { id: 'ann' } });
    await ann.signIn();
    assert.deepEqual(await json(server.terminateUserConnections('ann')), {});
    assert.equal((await ann.error(4009)).code, 4009);
    await ann.reaches('disconnected');
    assert.deepEqual(await json(server.terminateUserConnections('nobody')), {});
  });

  test('P50: authenticateUser makes a sign-in the broker believes', async (t) => {
    const user = { id: 'ann', user_info: { name: 'Zoë' }, watchlist: ['ann'] };
    const customHandler = ({ socketId }, answer) => answer(null, server.authenticateUser(socketId, user));
    const ann = await world.connect(t, { options: { userAuthentication: { customHandler } } });
    await ann.signIn();
    assert.deepEqual(ann.pusher.user.user_data, user);
  });

  test('P40: authorizeChannel and its old name authenticate make permits the broker believes', async (t) => {
    const ann = await world.connect(t);
    const [orders, room] = [fresh('private-orders'), fresh('presence-room')];
    ann.say('pusher:subscribe', { channel: orders, ...server.authenticate(ann.socketId, orders) });
    assert.equal((await ann.frames.next()).event, 'pusher_internal:subscription_succeeded');
    ann.say('pusher:subscribe', { channel: room, ...server.authorizeChannel(ann.socketId, room, { user_id: 10 }) });
    assert.deepEqual((await ann.frames.next()).data, { presence: { count: 1, ids: ['10'], hash: { 10: {} } } });
  });
});

describe('get', () => {
  test('P82 P85: /channels lists what is occupied, by prefix, with the numbers of users', async (t) => {
    const prefix = fresh('presence-list');
    const [one, two] = [`${prefix}-one`, `${prefix}-two`];
    assert.deepEqual(await get('/channels', { filter_by_prefix: prefix }), { channels: {} });
    const first = await subscriber(t, one, { member: { user_id: 'ann' } });
    await subscriber(t, one, { member: { user_id: 'ann' } });
    await subscriber(t, two, { member: { user_id: 'ann' } });
    await subscriber(t, two, { member: { user_id: 'bob' } });
    const plain = fresh('orders');
    await subscriber(t, plain);

    assert.deepEqual(await get('/channels', { filter_by_prefix: prefix }), { channels: { [one]: {}, [two]: {} } });
    assert.deepEqual(await get('/channels', { filter_by_prefix: prefix, info: 'user_count' }), {
      channels: { [one]: { user_count: 1 }, [two]: { user_count: 2 } },
    });
    const all = (await get('/channels')).channels;
    for (const name of [one, two, plain]) assert.deepEqual(all[name], {});

    first.client.pusher.unsubscribe(one);
    await first.client.heard();
    assert.deepEqual(await get('/channels', { filter_by_prefix: one }), { channels: { [one]: {} } });
  });

  test('P82: /channels counts users of presence channels only', async () => {
    const message =
      /^user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-/;
    await refused(get('/channels', { info: 'user_count' }), 400, message);
    await refused(get('/channels', { info: 'user_count', filter_by_prefix: 'private-' }), 400, message);
    await refused(get('/channels', { info: 'weather' }), 400, /^info should be a comma separated list of attributes/);
  });

  test('P54 P82: /channels never shows the events of users', async (t) => {
    const carl = await world.connect(t, { user: { id: 'carl' } });
    await carl.signIn();
    for (const name of Object.keys((await get('/channels')).channels)) assert.doesNotMatch(name, /^#/);
  });

  test('P83 P85: /channels/{name} tells of one channel, occupied or not', async (t) => {
    const [room, orders] = [fresh('presence-room'), fresh('orders')];
    assert.deepEqual(await get(`/channels/${orders}`), { occupied: false });
    assert.deepEqual(await get(`/channels/${room}`, { info: 'user_count,subscription_count' }), {
      occupied: false,
      user_count: 0,
      subscription_count: 0,
    });
    await subscriber(t, orders);
    await subscriber(t, room, { member: { user_id: 'ann' } });
    await subscriber(t, room, { member: { user_id: 'ann' } });
    assert.deepEqual(await get(`/channels/${orders}`), { occupied: true });
    assert.deepEqual(await get(`/channels/${orders}`, { info: 'subscription_count' }), {
      occupied: true,
      subscription_count: 1,
    });
    assert.deepEqual(await get(`/channels/${room}`, { info: 'user_count,subscription_count' }), {
      occupied: true,
      user_count: 1,
      subscription_count: 2,
    });
    await refused(
      get(`/channels/${orders}`, { info: 'user_count' }),
      400,
      /^Cannot retrieve the user count unless the channel is a presence channel/,
    );
    await refused(
      get(`/channels/${orders}`, { info: 'weather' }),
      400,
      /^info should be a comma separated list of attributes/,
    );
    await refused(get('/channels/two%20words'), 400, /^Invalid channel name '/);
  });

  test('P83: /channels/{name} shows what a cache channel keeps', async () => {
    const name = fresh('cache-prices');
    assert.deepEqual(await get(`/channels/${name}`, { info: 'cache' }), { occupied: false, cache: null });
    await server.trigger(name, 'price', { now: 1 });
    const { cache } = await get(`/channels/${name}`, { info: 'cache' });
    assert.equal(cache.data, '{"now":1}');
    assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1_700 && cache.ttl <= 1_800, `ttl ${cache.ttl}`);
    await refused(
      get(`/channels/${fresh('orders')}`, { info: 'cache' }),
      400,
      /^Cannot retrieve the cache unless the channel is a cache channel/,
    );
  });

  test('P83: /channels/{name} takes every character a name may have', async (t) => {
    const name = `${fresh('presence-a@b=c,d;e.f_g')}`;
    await subscriber(t, name, { member: { user_id: 'ann' } });
    assert.deepEqual(await get(`/channels/${name}`, { info: 'user_count' }), { occupied: true, user_count: 1 });
  });

  test('P84: /channels/{name}/users lists each user once', async (t) => {
    const name = fresh('presence-room');
    assert.deepEqual(await get(`/channels/${name}/users`), { users: [] });
    for (const user_id of ['ann', 'ann', 10, '10', 'zoë']) await subscriber(t, name, { member: { user_id } });
    const { users } = await get(`/channels/${name}/users`);
    assert.deepEqual(users.map(({ id }) => id).sort(), ['10', 'ann', 'zoë']);
    await refused(get('/channels/orders/users'), 400, /^Users can only be retrieved for presence channels/);
  });

  test('P86: refuses parameters it does not know', async () => {
    const extraneous = /^The following query string parameters are extraneous: info/;
    await refused(get('/channels/presence-room/users', { info: 'user_count' }), 400, extraneous);
    await refused(
      get('/channels', { weather: 'fine' }),
      400,
      /^The following query string parameters are extraneous: weather/,
    );
  });
});

describe('a request', () => {
  /** Every kind of call, each of which has to be refused. */
  const everyCall = (sdk) => [
    () => sdk.trigger('orders', 'e', 1),
    () => sdk.triggerBatch([{ channel: 'orders', name: 'e', data: '1' }]),
    () => sdk.sendToUser('ann', 'e', 1),
    () => sdk.terminateUserConnections('ann'),
    () => sdk.get({ path: '/channels' }),
    () => sdk.get({ path: '/channels/orders' }),
    () => sdk.get({ path: '/channels/presence-room/users' }),
  ];

  test('P71 P75: with a wrong secret is refused with 401', async () => {
    for (const call of everyCall(broker.sdk(shop, { secret: 'stolen' }))) {
      await refused(call(), 401, /^Invalid signature: you should have sent HmacSHA256Hex\("/);
    }
  });

  test('P71 P75: with an unknown key, or that of another app, is refused with 401', async () => {
    for (const call of everyCall(broker.sdk(shop, { key: 'nobody' }))) await refused(call(), 401, /^Unknown auth_key/);
    for (const call of everyCall(broker.sdk(closed, { appId: shop.id })))
      await refused(call(), 401, /^Unknown auth_key/);
  });

  test('P75: to an unknown app is refused with 404', async () => {
    for (const call of everyCall(broker.sdk(shop, { appId: '404' }))) await refused(call(), 404, /^Unknown app_id/);
  });

  test('P75: to a disabled app is refused with 403', async () => {
    for (const call of everyCall(broker.sdk(closed))) await refused(call(), 403, /./);
  });

  test('P71: may be 590 seconds early or late, not 610', async () => {
    /** What `call` gives when this machine's clock is off by so many seconds while it is signed. */
    const skewed = (seconds, call) => {
      const now = Date.now();
      const clock = mock.method(Date, 'now', () => now + seconds * 1_000);
      try {
        return call();
      } finally {
        clock.mock.restore();
      }
    };
    for (const seconds of [-590, 590]) {
      assert.deepEqual(await json(skewed(seconds, () => server.trigger('orders', 'e', 1))), {});
    }
    for (const seconds of [-610, 610]) {
      await refused(
        skewed(seconds, () => server.trigger('orders', 'e', 1)),
        401,
        /^Timestamp expired: Given timestamp \(.+\) not within 600s of server time \(.+\)/,
      );
    }
  });

  test('P70 P71: signed by the SDK and sent by hand may be reordered and escaped, not changed', async () => {
    const body = JSON.stringify({ name: 'e', channels: ['orders'], data: '1' });
    const trigger = { method: 'POST', path: `/apps/${shop.id}/events`, body };
    const list = {
      method: 'GET',
      path: `/apps/${shop.id}/channels`,
      params: { filter_by_prefix: 'presence-', info: 'user_count,subscription_count' },
    };
    const signed = (request) => server.createSignedQueryString(request).split('&');
    const send = async ({ method, path }, query, sent) => {
      const response = await fetch(`http://127.0.0.1:${broker.port}${path}?${query.join('&')}`, { method, body: sent });
      return [response.status, await response.text()];
    };
    const isRefused = async (answer, text) => {
      const [status, reason] = await answer;
      assert.equal(status, 401);
      assert.match(reason, text);
    };

    assert.deepEqual(await send(trigger, signed(trigger).reverse(), body), [200, '{}']);
    assert.equal((await send(list, signed(list).reverse()))[0], 200);
    const escaped = signed(list).map((parameter) => parameter.replace(',', '%2C'));
    assert.equal((await send(list, escaped))[0], 200);

    await isRefused(send(trigger, signed(trigger), body.replace('"1"', '"2"')), /^Invalid body_md5\n$/);
    await isRefused(send(list, [...signed(list), 'extra=1']), /^Invalid signature/);
    await isRefused(
      send({ ...trigger, path: `/apps/${shop.id}/batch_events` }, signed(trigger), body),
      /^Invalid signature/,
    );
    const bare = signed({ ...trigger, body: undefined });
    await isRefused(send(trigger, bare, body), /^Missing parameter: body_md5\n$/);
    for (const [name, text] of [
      ['auth_key', /^Missing parameter: auth_key\n$/],
      ['auth_version', /^Version required\n$/],
      ['auth_timestamp', /^Timestamp required\n$/],
      ['body_md5', /./],
      ['auth_signature', /./],
    ]) {
      const without = signed(trigger).filter((parameter) => !parameter.startsWith(`${name}=`));
      await isRefused(send(trigger, without, body), text);
    }
  });

  test('P40 P71: may be signed with any key of the app', async () => {
    assert.deepEqual(await json(broker.sdk(shop, shop.keys[1]).trigger('orders', 'e', 1)), {});
    const mixed = { key: shop.keys[0].key, secret: shop.keys[1].secret };
    await refused(broker.sdk(shop, mixed).trigger('orders', 'e', 1), 401, /^Invalid signature/);
  });

  test('P87: of a kind the broker does not know is refused with text', async () => {
    await refused(get('/weather'), 404, /./);
    await refused(server.post({ path: '/channels', body: {} }), 405, /./);
  });
});

describe('webhook', () => {
  /** A world whose app `shop` tells a web server of everything, and the requests that server gets. */
  async function told(t) {
    const requests = [];
    const waiting = [];
    const receiver = createServer(async (request, response) => {
      request.rawBody = await text(request);
      response.end();
      requests.push(request);
      waiting.shift()?.();
    });
    receiver.listen(0, '127.0.0.1');
    await once(receiver, 'listening');
    t.after(() => receiver.close());
    const url = `http://127.0.0.1:${receiver.address().port}/webhook`;
    const told = await World.for(t, 'pusher-js', {
      webhooks: { allowed_networks: ['127.0.0.0/8'] },
      apps: [{ ...shop, webhook_batching: true, webhooks: [{ url }] }],
    });
    const next = async () => {
      if (requests.length === 0) await within(new Promise((resolve) => waiting.push(resolve)), 'a webhook');
      return requests.shift();
    };
    return { world: told, next };
  }

  test('P90: real requests are valid and say what happened', async (t) => {
    const { world, next } = await told(t);
    const [room, user_id] = [fresh('presence-room'), 'zoë "日本"'];
    const client = await world.connect(t, { member: { user_id } });
    await client.subscribe(room).succeeded();
    const events = [];
    while (events.length < 2) {
      const webhook = world.server.webhook(await next());
      assert.ok(webhook.isValid());
      assert.ok(Math.abs(webhook.getTime() - Date.now()) < 60_000);
      events.push(...webhook.getEvents());
    }
    assert.deepEqual(events, [
      { name: 'channel_occupied', channel: room },
      { name: 'member_added', channel: room, user_id },
    ]);
  });

  test('P90: another secret or another body is not valid', async (t) => {
    const { world, next } = await told(t);
    const client = await world.connect(t);
    await client.subscribe(fresh('orders')).succeeded();
    const request = await next();
    assert.ok(world.server.webhook(request).isValid());
    assert.ok(!world.broker.sdk(shop, { secret: 'stolen' }).webhook(request).isValid());
    request.rawBody = request.rawBody.replace('occupied', 'vacated');
    assert.ok(!world.server.webhook(request).isValid());
  });
});
