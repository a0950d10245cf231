import assert from 'node:assert/strict';
import { it } from 'node:test';
import { HoldfastError } from '#contract/errors.ts';
import { Inbox } from './inbox.ts';

it('an inbox hands out exact counts, however the bytes arrived', async () => {
  const inbox = new Inbox(100);
  const five = inbox.take(5);
  for (const text of ['ab', '', 'c', 'defgh', 'i', 'jk']) inbox.push(Buffer.from(text));
  assert.equal((await five).toString(), 'abcde');
  assert.equal((await inbox.take(1)).toString(), 'f');
  assert.equal((await inbox.take(4)).toString(), 'ghij');
  assert.equal(inbox.waitingBytes, 1);
  assert.equal((await inbox.take(0)).length, 0);
  assert.equal(inbox.drain().toString(), 'k');
});

it('an inbox gives what arrived before the end, and the reason after it', async () => {
  const inbox = new Inbox(100);
  inbox.push(Buffer.from('abc'));
  inbox.fail(new HoldfastError('unreadable', 'gone'));
  inbox.push(Buffer.from('late'));
  assert.equal((await inbox.take(3)).toString(), 'abc');
  await assert.rejects(inbox.take(1), { code: 'unreadable' });
});

it('an inbox stops its feeder while more waits than it holds, unless that much was asked for', async () => {
  const flow: string[] = [];
  const inbox = new Inbox(10, { onFull: () => flow.push('full'), onRoom: () => flow.push('room') });
  inbox.push(Buffer.alloc(11));
  assert.deepEqual(flow, ['full']);
  await inbox.take(5);
  assert.deepEqual(flow, ['full', 'room']);
  const much = inbox.take(1000);
  inbox.push(Buffer.alloc(900));
  assert.deepEqual(flow, ['full', 'room']);
  inbox.push(Buffer.alloc(200));
  await much;
  assert.equal(flow.at(-1), 'full');
});
