import assert from 'node:assert/strict';
import { closeSync, openSync, readSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { formatNbdUri } from '#edge/nbd/address.ts';
import type { BlockExtent, ExportBackend } from '#edge/nbd/backend.ts';
import { connectNbd } from '#edge/nbd/client.ts';
import { COMMAND, MAGIC_REQUEST, putRequest, REQUEST_BYTES } from '#edge/nbd/protocol.ts';
import { type NbdServer, type ServeOptions, serveNbd } from '#edge/nbd/server.ts';
import { must, needs, noise, run, startNbdkit, temporaryFolder } from './nbd.ts';

const MiB = 1024 * 1024;

/** A disk in memory that knows which of its 64 KiB blocks were written. */
function memoryDisk(content: Buffer, readOnly = false): ExportBackend & { readonly flushes: () => number } {
  const block = 65_536;
  const blank = (at: number, end: number) => content.subarray(at, end).every((byte) => byte === 0);
  let flushes = 0;
  return {
    sizeBytes: content.length,
    readOnly,
    description: 'in memory',
    flushes: () => flushes,
    read: (offset, into) => void content.copy(into, 0, offset, offset + into.length),
    write: (offset, data) => content.set(data, offset),
    trim: (offset, length) => void content.fill(0, offset, offset + length),
    flush: () => void flushes++,
    blockStatus: (offset, length) => {
      const extents: BlockExtent[] = [];
      for (let at = offset; at < offset + length; ) {
        const end = Math.min((Math.floor(at / block) + 1) * block, content.length);
        const zero = blank(at, end);
        extents.push({ length: end - at, hole: zero, zero });
        at = end;
      }
      return extents;
    },
  };
}

async function serve(
  t: TestContext,
  exports: Record<string, ExportBackend>,
  options: Partial<ServeOptions> = {},
): Promise<NbdServer> {
  const socket = join(await temporaryFolder(t), 's');
  const server = await serveNbd({ listen: { socket }, exports: new Map(Object.entries(exports)), ...options });
  t.after(() => server.close());
  return server;
}

const uriOf = (server: NbdServer, exportName = '') => formatNbdUri({ ...server.address, exportName });

function sparse(seed: string, length: number): Buffer {
  const content = Buffer.alloc(length);
  noise(seed, Math.floor(length / 4)).copy(content, Math.floor(length / 3));
  return content;
}

describe('the NBD server and libnbd', { skip: needs('nbdinfo', 'nbdcopy') }, () => {
  it('shows its exports with size, description and abilities', async (t) => {
    const server = await serve(t, { one: memoryDisk(Buffer.alloc(1)), two: memoryDisk(Buffer.alloc(1000), true) });
    const listed = JSON.parse(await must('nbdinfo', '--list', '--json', uriOf(server)));
    const exports = listed.exports.map((e: Record<string, unknown>) => [
      e['export-name'],
      e['export-size'],
      e.description,
      e.is_read_only,
    ]);
    assert.deepEqual(exports, [
      ['one', 1, 'in memory', false],
      ['two', 1000, 'in memory', true],
    ]);
    assert.equal((await run('nbdinfo', uriOf(server, 'three'))).status, 1);
  });

  for (const sizeBytes of [1, 4095, 5 * MiB + 321]) {
    it(`hands out ${sizeBytes} bytes exactly, over several connections`, async (t) => {
      const content = sparse(`out ${sizeBytes}`, sizeBytes);
      const server = await serve(t, { disk: memoryDisk(content, true) });
      const file = join(await temporaryFolder(t), 'copy');
      await must('nbdcopy', '--connections=4', uriOf(server, 'disk'), file);
      assert.ok((await readFile(file)).equals(content));
    });
  }

  it('takes in a disk exactly, and flushes when asked', async (t) => {
    const content = sparse('in', 5 * MiB + 321);
    const file = join(await temporaryFolder(t), 'original');
    await writeFile(file, content);
    const target = noise('old', content.length);
    const disk = memoryDisk(target);
    const server = await serve(t, { disk });
    await must('nbdcopy', '--flush', file, uriOf(server));
    assert.ok(target.equals(content));
    assert.ok(disk.flushes() > 0);
  });

  it('serves over TCP too', async (t) => {
    const content = noise('tcp', MiB);
    const server = await serve(t, { disk: memoryDisk(content) }, { listen: { host: '127.0.0.1', port: 0 } });
    const file = join(await temporaryFolder(t), 'copy');
    await must('nbdcopy', uriOf(server), file);
    assert.ok((await readFile(file)).equals(content));
  });

  it('maps holes as they are', async (t) => {
    const content = Buffer.alloc(MiB);
    content.fill(7, 65_536 * 3, 65_536 * 5);
    const server = await serve(t, { disk: memoryDisk(content) });
    const map = JSON.parse(await must('nbdinfo', '--map', '--json', uriOf(server))) as Record<string, number>[];
    assert.deepEqual(
      map.map(({ offset, length, type }) => [offset, length, type]),
      [
        [0, 196_608, 3],
        [196_608, 131_072, 0],
        [327_680, MiB - 327_680, 3],
      ],
    );
  });
});

describe('the NBD server and QEMU', { skip: needs('qemu-img', 'qemu-io') }, () => {
  it('gives a disk that qemu-img converts, compares and maps', async (t) => {
    const content = sparse('qemu', 8 * MiB);
    const folder = await temporaryFolder(t);
    const [file, image] = [join(folder, 'raw'), join(folder, 'disk.qcow2')];
    await writeFile(file, content);
    const server = await serve(t, { disk: memoryDisk(content, true) });
    await must('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', uriOf(server, 'disk'), image);
    await must('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', image, file);
    await must('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', uriOf(server), file);
    const map = JSON.parse(await must('qemu-img', 'map', '--output=json', '-f', 'raw', uriOf(server))) as {
      data: boolean;
    }[];
    assert.deepEqual(
      map.map(({ data }) => data),
      [false, true, false],
    );
  });

  it('takes what qemu-img converts into it', async (t) => {
    const content = sparse('into', 8 * MiB);
    const file = join(await temporaryFolder(t), 'raw');
    await writeFile(file, content);
    const target = noise('old', content.length);
    const server = await serve(t, { disk: memoryDisk(target) });
    await must('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', file, uriOf(server));
    assert.ok(target.equals(content));
  });

  it('obeys patterns that qemu-io writes, zeroes and discards', async (t) => {
    const server = await serve(t, { disk: memoryDisk(noise('io', 4 * MiB)) });
    const commands = [
      'write -P 5 512 3M',
      'read -P 5 512 3M',
      'write -z 1M 1M',
      'read -P 0 1M 1M',
      'discard 2M 64k',
      'read -P 0 2M 64k',
      'flush',
    ];
    const said = await must('qemu-io', '-f', 'raw', ...commands.flatMap((c) => ['-c', c]), uriOf(server));
    assert.doesNotMatch(said, /fail|error/i);
  });
});

describe('the NBD server and nbdkit as its client', { skip: needs('nbdkit') }, () => {
  it('is served on by the nbd plugin', async (t) => {
    const content = noise('chain', 2 * MiB + 1);
    const server = await serve(t, { disk: memoryDisk(content) });
    const { address } = await startNbdkit(t, ['nbd', `uri=${uriOf(server, 'disk')}`]);
    await using client = await connectNbd(address);
    const found = Buffer.alloc(content.length);
    await client.read(0, found);
    assert.ok(found.equals(content));
    await client.write(1, noise('back', 1000));
    assert.ok(content.subarray(1, 1001).equals(noise('back', 1000)));
  });
});

describe('the NBD server and its own client', () => {
  it('refuses writes to a read-only export and ranges beyond the end with the errors of the protocol', async (t) => {
    const server = await serve(t, {
      fixed: memoryDisk(Buffer.alloc(1000), true),
      open: memoryDisk(Buffer.alloc(1000)),
    });
    const errnos = async (name: string, command: number, offset: number, length: number) => {
      const replies = await rawRequest(server, name, {
        command,
        offset,
        length,
        data: command === COMMAND.write ? Buffer.alloc(length) : undefined,
      });
      return replies.readUInt32BE(4);
    };
    assert.equal(await errnos('fixed', COMMAND.write, 0, 10), 1);
    assert.equal(await errnos('fixed', COMMAND.trim, 0, 10), 1);
    assert.equal(await errnos('open', COMMAND.read, 999, 2), 22);
    assert.equal(await errnos('open', COMMAND.read, 2 ** 52, 2), 22);
    assert.equal(await errnos('open', COMMAND.write, 999, 2), 28);
    assert.equal(await errnos('open', COMMAND.blockStatus, 0, 10), 22);
    assert.equal(await errnos('open', 99, 0, 0), 22);
    assert.equal(await errnos('open', COMMAND.read, 0, 0), 22);
    assert.equal(await errnos('open', COMMAND.read, 0, 10), 0);
  });

  it('passes failures of the disk on, and tells its owner', async (t) => {
    const told: unknown[] = [];
    const failing: ExportBackend = {
      ...memoryDisk(Buffer.alloc(4096)),
      read: () => {
        throw new HoldfastError('damaged', 'chunk 17 is damaged');
      },
      write: () => Promise.reject(new HoldfastError('target-full', 'no space')),
    };
    const server = await serve(t, { failing }, { onError: (error) => told.push(error) });
    await using client = await connectNbd(server.address);
    await assert.rejects(
      client.read(0, Buffer.alloc(10)),
      (error) => isHoldfastError(error, 'unreadable') && /chunk 17/.test(error.message),
    );
    await assert.rejects(client.write(0, Buffer.alloc(10)), (error) => isHoldfastError(error, 'target-full'));
    assert.deepEqual(
      told.map((error) => (error as HoldfastError).code),
      ['damaged', 'target-full'],
    );
  });

  it('holds a client that reads no answers to its share of memory and calls', async (t) => {
    let calls = 0;
    const disk = memoryDisk(Buffer.alloc(MiB));
    const counted: ExportBackend['read'] = (...args) => {
      calls++;
      return disk.read(...args);
    };
    const server = await serve(t, { disk: { ...disk, read: counted } }, { inFlight: 8 });
    const socket = await enterRaw(server, 'disk');
    socket.pause();
    const request = Buffer.alloc(REQUEST_BYTES);
    for (let cookie = 0; cookie < 5000; cookie++) {
      putRequest(request, 0, { command: COMMAND.read, flags: 0, cookie, offset: 0, length: MiB });
      socket.write(Buffer.from(request));
    }
    await sleep(200);
    // A few answers fit into the buffers of the socket itself.
    assert.ok(calls >= 8 && calls < 20, `${calls} calls`);
    await using other = await connectNbd(server.address);
    await other.read(0, Buffer.alloc(MiB));
    socket.destroy();
  });

  it('lets go of everything when it closes, while clients read', async (t) => {
    let reading = 0;
    const slow: ExportBackend = {
      ...memoryDisk(Buffer.alloc(MiB)),
      read: async (_offset, _into, signal) => {
        reading++;
        await sleep(20_000, undefined, { signal }).catch(() => {});
        reading--;
      },
    };
    const server = await serve(t, { slow });
    const clients = await Promise.all([1, 2, 3].map(() => connectNbd(server.address)));
    const reads = clients.map((client) =>
      assert.rejects(client.read(0, Buffer.alloc(MiB)), (e) => isHoldfastError(e, 'unreadable')),
    );
    while (reading < 3) await sleep(5);
    assert.equal(server.clients, 3);
    await server.close();
    await Promise.all(reads);
    assert.deepEqual([reading, server.clients], [0, 0]);
    await assert.rejects(stat(server.address.socket!), { code: 'ENOENT' });
  });

  it('hangs up on clients that dawdle in the handshake, and on more clients than agreed', async (t) => {
    const server = await serve(t, { disk: memoryDisk(Buffer.alloc(10)) }, { handshakeTimeoutMs: 100, maxClients: 2 });
    const dawdler = createConnection(server.address.socket!);
    const gone = new Promise((resolve) => dawdler.once('close', resolve));
    dawdler.resume();
    await using first = await connectNbd(server.address);
    await assert.rejects(connectNbd(server.address), (error) => isHoldfastError(error, 'unreadable'));
    await gone;
    await sleep(20);
    await using second = await connectNbd(server.address);
    await Promise.all([first, second].map((client) => client.read(0, Buffer.alloc(10))));
  });

  it('does not take the socket of a server that lives, nor a file that is no socket', async (t) => {
    const living = await serve(t, {});
    const socket = living.address.socket!;
    assert.equal((await stat(socket)).mode & 0o777, 0o600);
    await assert.rejects(serveNbd({ listen: { socket }, exports: new Map() }), (error) =>
      isHoldfastError(error, 'busy'),
    );
    const file = join(await temporaryFolder(t), 'precious');
    await writeFile(file, 'keep me');
    await assert.rejects(serveNbd({ listen: { socket: file }, exports: new Map() }), (error) =>
      isHoldfastError(error, 'busy'),
    );
    assert.equal(await readFile(file, 'utf8'), 'keep me');
  });

  it('takes over the socket that a killed server left', { skip: needs('nbdkit') }, async (t) => {
    const dead = await startNbdkit(t, ['memory', '1M']);
    await dead.kill();
    const socket = dead.address.socket!;
    assert.ok((await stat(socket)).isSocket());
    await serve(t, { disk: memoryDisk(Buffer.alloc(5)) }, { listen: { socket } });
    await using client = await connectNbd(dead.address);
    assert.equal(client.sizeBytes, 5);
  });

  it('serves a file larger than its buffers to many readers at once', async (t) => {
    const content = noise('many', 24 * MiB);
    const path = join(await temporaryFolder(t), 'disk');
    await writeFile(path, content);
    const fd = openSync(path, 'r');
    t.after(() => closeSync(fd));
    const server = await serve(t, {
      disk: {
        sizeBytes: content.length,
        readOnly: true,
        read: (offset, into) => void readSync(fd, into, 0, into.length, offset),
      },
    });
    await Promise.all(
      [1, 2, 3, 4].map(async () => {
        await using client = await connectNbd(server.address, { requestBytes: 2 * MiB });
        const found = Buffer.alloc(content.length);
        await client.read(0, found);
        assert.ok(found.equals(content));
      }),
    );
  });
});

/** A connection in transmission without structured replies, all by hand. */
async function enterRaw(server: NbdServer, name: string) {
  const socket = createConnection(server.address.socket!);
  const body = Buffer.concat([
    Buffer.from('IHAVEOPT'),
    Buffer.from([0, 0, 0, 1, 0, 0, 0, name.length]),
    Buffer.from(name),
  ]);
  socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), body]));
  await new Promise<void>((resolve) => {
    let had = 0;
    const count = (bytes: Buffer) => {
      had += bytes.length;
      if (had < 28) return;
      socket.removeListener('data', count);
      resolve();
    };
    socket.on('data', count);
  });
  return socket;
}

async function rawRequest(
  server: NbdServer,
  name: string,
  request: { command: number; offset: number; length: number; data?: Buffer | undefined },
): Promise<Buffer> {
  const socket = await enterRaw(server, name);
  const head = Buffer.alloc(REQUEST_BYTES);
  putRequest(head, 0, { ...request, flags: 0, cookie: 5 });
  assert.equal(head.readUInt32BE(0), MAGIC_REQUEST);
  const reply = new Promise<Buffer>((resolve) => socket.once('data', resolve));
  socket.write(request.data ? Buffer.concat([head, request.data]) : head);
  const bytes = await reply;
  socket.destroy();
  return bytes;
}
