import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isHoldfastError } from '#contract/errors.ts';
import type { ExportBackend } from '#edge/nbd/backend.ts';
import type { Channel } from '#edge/nbd/channel.ts';
import { connectNbd } from '#edge/nbd/client.ts';
import {
  COMMAND,
  encodeOption,
  encodeOptionReply,
  lengthPrefixed,
  MAGIC_CHUNK,
  MAGIC_OPTION,
  MAGIC_SERVER,
  MAGIC_SIMPLE_REPLY,
  OPTION,
  putRequest,
  putUint64,
  REPLY,
  REQUEST_BYTES,
  uint16,
  uint32,
} from '#edge/nbd/protocol.ts';
import { serveNbd } from '#edge/nbd/server.ts';
import { Transmission } from '#edge/nbd/transmission.ts';
import { noise, temporaryFolder } from '../peers/nbd.ts';

/** Dice that fall the same for the same seed. */
function dice(seed: string): (sides: number) => number {
  const bytes = noise(seed, 4096);
  let at = 0;
  return (sides) => {
    const roll = bytes.readUInt32BE((at % 1000) * 4) ^ (at >>> 0);
    at++;
    return (roll >>> 0) % sides;
  };
}

/** The stream as a broken or hostile peer might send it. */
function spoil(stream: Buffer, roll: (sides: number) => number): Buffer {
  const bytes = Buffer.from(stream);
  switch (roll(6)) {
    case 0: // noise from the start
      return noise(`garbage ${roll(1e9)}`, 1 + roll(300));
    case 1: // cut off
      return bytes.subarray(0, roll(bytes.length));
    case 2: {
      // a piece said twice
      const at = roll(bytes.length);
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.max(0, at - roll(60)))]);
    }
    case 3: {
      // noise in between
      const at = roll(bytes.length);
      return Buffer.concat([bytes.subarray(0, at), noise(`hole ${at}`, 1 + roll(40)), bytes.subarray(at)]);
    }
    case 4: {
      // all ones somewhere: the greatest length, the unknown type
      const at = roll(bytes.length);
      bytes.fill(0xff, at, Math.min(bytes.length, at + 1 + roll(8)));
      return bytes;
    }
    default:
      for (let i = 0; i <= roll(4); i++) bytes[roll(bytes.length)]! ^= 1 << roll(8);
      return bytes;
  }
}

function torn(bytes: Buffer, roll: (sides: number) => number): Buffer[] {
  const pieces = [];
  for (let at = 0; at < bytes.length; ) {
    const to = at + 1 + roll(100);
    pieces.push(bytes.subarray(at, to));
    at = to;
  }
  return pieces;
}

function chunk(type: number, cookie: number, body: Buffer, done = true): Buffer {
  const head = Buffer.alloc(20);
  head.writeUInt32BE(MAGIC_CHUNK, 0);
  head.writeUInt16BE(done ? 1 : 0, 4);
  head.writeUInt16BE(type, 6);
  putUint64(head, 8, cookie);
  head.writeUInt32BE(body.length, 16);
  return Buffer.concat([head, body]);
}

function at(offset: number, rest: Uint8Array): Buffer {
  const bytes = Buffer.alloc(8);
  putUint64(bytes, 0, offset);
  return Buffer.concat([bytes, rest]);
}

function simple(cookie: number, errno = 0): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32BE(MAGIC_SIMPLE_REPLY, 0);
  bytes.writeUInt32BE(errno, 4);
  putUint64(bytes, 8, cookie);
  return bytes;
}

const CONTENT = noise('content', 1000);

/** A server's right answers to: read 0+1000 (1), status 0+1000 (2), write (3), failed read (4). */
const ANSWERS = Buffer.concat([
  chunk(1, 1, at(500, CONTENT.subarray(500)), false),
  chunk(2, 1, at(100, uint32(50)), false),
  chunk(1, 1, at(0, CONTENT.subarray(0, 100)), false),
  chunk(1, 1, at(150, CONTENT.subarray(150, 500)), false),
  chunk(0, 1, Buffer.alloc(0)),
  chunk(5, 2, Buffer.concat([uint32(9), uint32(400), uint32(3), uint32(600), uint32(0)])),
  simple(3),
  chunk(0x8001, 4, Buffer.concat([uint32(5), uint16(4), Buffer.from('oops')])),
]);

function inMemoryChannel(): Channel & { destroyed: boolean } {
  const channel = {
    destroyed: false,
    onBytes: () => {},
    onEnd: () => {},
    write: () => {},
    batch: (act: () => void) => act(),
    secure: async () => {},
    end: async () => {},
    destroy: () => {
      channel.destroyed = true;
    },
  };
  return channel;
}

function ask(transmission: Transmission) {
  const arena = Buffer.alloc(3000, 0xaa);
  const outcome = Promise.allSettled([
    transmission.run({ command: COMMAND.read, flags: 0, offset: 0, length: 1000, into: arena.subarray(1000, 2000) }),
    transmission.askStatus(9, 0, 1000),
    transmission.run({ command: COMMAND.write, flags: 0, offset: 0, length: 10, data: Buffer.alloc(10) }),
    transmission.run({ command: COMMAND.read, flags: 0, offset: 0, length: 1000, into: Buffer.alloc(1000) }),
  ]);
  return { arena, outcome };
}

const OPTIONS = { where: 'a test', structured: true, inFlight: 32, requestBytes: 65_536, timeoutMs: 60_000 };

describe('the NBD client against malformed bytes', () => {
  it('understands the well-formed ones, however they are torn', async () => {
    for (let seed = 0; seed < 100; seed++) {
      const transmission = new Transmission(inMemoryChannel(), OPTIONS);
      const { arena, outcome } = ask(transmission);
      for (const piece of torn(ANSWERS, dice(`tear ${seed}`))) transmission.receive(piece);
      transmission.lost();
      const [read, status, write, failed] = await outcome;
      const expected = Buffer.from(CONTENT);
      expected.fill(0, 100, 150);
      assert.ok(arena.subarray(1000, 2000).equals(expected));
      assert.deepEqual(
        [read!.status, status!.status, write!.status, failed!.status],
        ['fulfilled', 'fulfilled', 'fulfilled', 'rejected'],
      );
    }
  });

  it('answers 4000 malformed streams with typed errors, and writes nowhere but into the buffer', async () => {
    let breaches = 0;
    for (let seed = 0; seed < 4000; seed++) {
      const roll = dice(`client ${seed}`);
      const channel = inMemoryChannel();
      const transmission = new Transmission(channel, OPTIONS);
      const { arena, outcome } = ask(transmission);
      for (const piece of torn(spoil(ANSWERS, roll), roll)) transmission.receive(piece);
      transmission.lost();
      for (const result of await outcome) {
        if (result.status === 'rejected')
          assert.ok(isHoldfastError(result.reason), `seed ${seed}: ${result.reason?.stack}`);
        if (result.status === 'rejected' && isHoldfastError(result.reason, 'protocol')) breaches++;
      }
      assert.ok(channel.destroyed);
      assert.ok(
        arena.subarray(0, 1000).every((byte) => byte === 0xaa) && arena.subarray(2000).every((byte) => byte === 0xaa),
        `seed ${seed}`,
      );
    }
    assert.ok(breaches > 1000, `only ${breaches} were seen as breaches`);
  });

  it('never takes a read for done whose answer has gaps, overlaps or another range', async () => {
    const half = (offset: number, length: number, done = false) => chunk(1, 1, at(offset, Buffer.alloc(length)), done);
    const wrongs = [
      [half(0, 500), chunk(0, 1, Buffer.alloc(0))],
      [half(0, 500), half(400, 600, true)],
      [half(500, 500), half(500, 500, true)],
      [half(0, 1001, true)],
      [half(5000, 10, true)],
      [chunk(2, 1, at(0, uint32(999)))],
      [chunk(0, 1, Buffer.alloc(0))],
      [simple(1)],
      [chunk(5, 1, Buffer.concat([uint32(9), uint32(1000), uint32(0)]))],
    ];
    for (const [i, wrong] of wrongs.entries()) {
      const transmission = new Transmission(inMemoryChannel(), OPTIONS);
      const { outcome } = ask(transmission);
      for (const piece of wrong) transmission.receive(piece);
      transmission.lost();
      const read = (await outcome)[0] as PromiseRejectedResult;
      assert.equal(read.reason?.code, 'protocol', `case ${i}`);
      assert.deepEqual([read.reason.data.offset, read.reason.data.length], [0, 1000]);
    }
  });

  it('answers 600 malformed handshakes with typed errors in time', async (t) => {
    const socket = join(await temporaryFolder(t), 's');
    const hello = Buffer.alloc(18);
    hello.writeBigUInt64BE(MAGIC_SERVER, 0);
    hello.writeBigUInt64BE(MAGIC_OPTION, 8);
    hello.writeUInt16BE(3, 16);
    const exported = Buffer.concat([uint16(0), at(1000, uint16(1))]);
    const right = Buffer.concat([
      hello,
      encodeOptionReply(OPTION.structuredReply, REPLY.ack),
      encodeOptionReply(
        OPTION.setMetaContext,
        REPLY.metaContext,
        Buffer.concat([uint32(1), Buffer.from('base:allocation')]),
      ),
      encodeOptionReply(OPTION.setMetaContext, REPLY.ack),
      encodeOptionReply(OPTION.go, REPLY.info, exported),
      encodeOptionReply(OPTION.go, REPLY.info, Buffer.concat([uint16(3), uint32(1), uint32(4096), uint32(65_536)])),
      encodeOptionReply(OPTION.go, REPLY.ack),
    ]);
    let answer: Buffer = right;
    const server = createServer((peer) => {
      peer.on('error', () => {});
      peer.end(answer);
      peer.resume();
    });
    server.listen(socket);
    await once(server, 'listening');
    t.after(() => server.close());
    let failed = 0;
    for (let seed = 0; seed < 600; seed++) {
      answer = seed === 0 ? right : spoil(right, dice(`handshake ${seed}`));
      try {
        const client = await connectNbd({ socket, exportName: '' }, { connectTimeoutMs: 2000 });
        await client.close();
      } catch (error) {
        assert.ok(isHoldfastError(error) && error.code !== 'timeout', `seed ${seed}: ${error}`);
        assert.notEqual(seed, 0, `${error}`);
        failed++;
      }
    }
    assert.ok(failed > 300, `only ${failed} failed`);
  });
});

describe('the NBD server against malformed bytes', () => {
  it('survives 2000 malformed clients, lets go of each, and serves on', async (t) => {
    const socket = join(await temporaryFolder(t), 's');
    const content = Buffer.from(CONTENT);
    const backend: ExportBackend = {
      sizeBytes: content.length,
      readOnly: false,
      read: (offset, into) => {
        assert.ok(offset + into.length <= content.length);
        content.copy(into, 0, offset, offset + into.length);
      },
      write: (offset, data) => {
        assert.ok(offset + data.length <= content.length);
      },
      trim: (offset, length) => assert.ok(offset + length <= content.length),
      blockStatus: (_offset, length) => [{ length, hole: false, zero: false }],
    };
    const bugs: unknown[] = [];
    const onError = (error: unknown) => {
      if (!isHoldfastError(error, 'protocol')) bugs.push(error);
    };
    await using server = await serveNbd({ listen: { socket }, exports: new Map([['d', backend]]), onError });
    const request = (command: number, offset: number, length: number, data: Buffer = Buffer.alloc(0)) => {
      const head = Buffer.alloc(REQUEST_BYTES);
      putRequest(head, 0, { command, flags: 0, cookie: offset, offset, length });
      return Buffer.concat([head, data]);
    };
    const query = Buffer.concat([lengthPrefixed('d'), uint32(1), lengthPrefixed('base:allocation')]);
    const right = Buffer.concat([
      uint32(3),
      encodeOption(OPTION.list),
      encodeOption(OPTION.structuredReply),
      encodeOption(OPTION.setMetaContext, query),
      encodeOption(OPTION.go, Buffer.concat([lengthPrefixed('d'), uint16(1), uint16(3)])),
      request(COMMAND.read, 10, 900),
      request(COMMAND.write, 20, 50, Buffer.alloc(50)),
      request(COMMAND.blockStatus, 0, 1000),
      request(COMMAND.writeZeroes, 5, 10),
      request(COMMAND.trim, 5, 10),
    ]);
    for (let seed = 0; seed < 2000; seed += 20) {
      await Promise.all(Array.from({ length: 20 }, (_, i) => visit(socket, spoil(right, dice(`server ${seed + i}`)))));
    }
    assert.deepEqual(bugs, []);
    await using client = await connectNbd({ socket, exportName: 'd' });
    const found = Buffer.alloc(1000);
    await client.read(0, found);
    assert.ok(found.equals(content));
    assert.equal(server.clients, 1);
  });
});

/** Says it all, hangs up its side, and waits until the server has hung up. */
async function visit(path: string, words: Buffer): Promise<void> {
  const socket: Socket = createConnection(path);
  socket.on('error', () => {});
  socket.resume();
  const closed = new Promise<void>((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('the server did not hang up')), 5000);
    socket.once('close', () => {
      clearTimeout(late);
      resolve();
    });
  });
  socket.end(words);
  await closed;
}
