import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fresh, World } from '../support/world.js';

// A client whose first attempt finds nobody listening makes the next one 15 seconds later.
const PATIENCE_MS = 45_000;

export function restart(library) {
  describe(`${library} in Node, when the broker restarts`, { concurrency: true }, () => {
    for (const [title, end] of [
      ['P11: is sent away with 4200 and resumes with the next process', 'stop'],
      ['P17: resumes with the next process after a crash', 'kill'],
    ]) {
      test(title, async (t) => {
        const world = await World.for(t, library);
        const who = (id) => ({ member: { user_id: id, user_info: {} }, user: { id } });
        const [ann, bob] = [await world.connect(t, who('ann')), await world.connect(t, who('bob'))];
        const names = ['news', 'private-news', 'private-encrypted-news', fresh('cache-news')];
        const news = names.map((name) => ann.subscribe(name));
        const room = ann.subscribe('presence-room');
        for (const subscription of [...news, room]) await subscription.succeeded();
        await bob.subscribe('presence-room').succeeded();
        await ann.signIn();
        const socketId = ann.socketId;

        await world.broker[end]();
        if (end === 'stop') assert.equal(typeof (await ann.error(4200)).message, 'string');
        await world.broker.startAgain();
        await Promise.all([ann.connected(PATIENCE_MS), bob.connected(PATIENCE_MS)]);

        assert.notEqual(ann.socketId, socketId);
        for (const subscription of news) {
          await subscription.inbox.find(({ event }) => event === 'pusher:subscription_succeeded');
          await world.server.trigger(subscription.channel.name, 'after', 1);
          await subscription.inbox.find(({ event, data }) => event === 'after' && data === 1);
        }
        await ann.signedIn();
        await world.server.sendToUser('ann', 'after', 2);
        assert.deepEqual(await ann.userEvents.next(), { event: 'after', data: 2 });

        await room.inbox.find(({ event }) => event === 'pusher:subscription_succeeded');
        await bob.frames.find(({ channel, event }) => channel === 'presence-room' && event.endsWith('_succeeded'));
        await (await world.connect(t, who('carl'))).subscribe('presence-room').succeeded();
        await room.inbox.find(({ event, data }) => event === 'pusher:member_added' && data.id === 'carl');
        assert.deepEqual(Object.keys(room.channel.members.members).sort(), ['ann', 'bob', 'carl']);
        assert.equal(room.channel.members.count, 3);
      });
    }
  });
}
