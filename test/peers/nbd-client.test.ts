import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { connectNbd, listNbdContexts, listNbdExports, type StatusExtent } from '#edge/nbd/client.ts';
import { Inbox } from '#edge/nbd/inbox.ts';
import {
  encodeOptionReply,
  FLAG,
  MAGIC_OPTION,
  MAGIC_SERVER,
  MAGIC_SIMPLE_REPLY,
  OPTION,
  REPLY,
} from '#edge/nbd/protocol.ts';
import { must, needs, noise, startNbdkit, startQemuNbd, temporaryFolder } from './nbd.ts';

const kit = { skip: needs('nbdkit') };
const qemu = { skip: needs('qemu-nbd', 'qemu-img', 'qemu-io') };
const MiB = 1024 * 1024;

async function collect(extents: AsyncIterable<StatusExtent>): Promise<StatusExtent[]> {
  const all = [];
  for await (const extent of extents) all.push(extent);
  return all;
}

function failsWith(code: string, range?: { offset: number; length: number }) {
  return (error: unknown) => {
    assert.ok(isHoldfastError(error), `not a typed error: ${error}`);
    assert.equal(error.code, code, error.message);
    if (range) assert.deepEqual({ offset: error.data.offset, length: error.data.length }, range);
    return true;
  };
}

describe('the NBD client and nbdkit', kit, () => {
  for (const sizeBytes of [1, 511, 4097, 3 * MiB + 13]) {
    it(`reads an export of ${sizeBytes} bytes byte for byte, in one go and in odd pieces`, async (t) => {
      const content = noise(`odd ${sizeBytes}`, sizeBytes);
      const path = join(await temporaryFolder(t), 'disk');
      await writeFile(path, content);
      const { address } = await startNbdkit(t, ['file', path]);
      await using client = await connectNbd(address);
      assert.equal(client.sizeBytes, sizeBytes);
      const whole = Buffer.alloc(sizeBytes);
      await client.read(0, whole);
      assert.ok(whole.equals(content));
      const pieces = Buffer.alloc(sizeBytes);
      const reads = [];
      for (let at = 0; at < sizeBytes; at += 99_991) reads.push(client.read(at, pieces.subarray(at, at + 99_991)));
      await Promise.all(reads);
      assert.ok(pieces.equals(content));
    });
  }

  it('reads the same without structured replies, and over TCP', async (t) => {
    const content = noise('simple', MiB + 1);
    const path = join(await temporaryFolder(t), 'disk');
    await writeFile(path, content);
    for (const options of [['--no-sr'], []]) {
      const { address } = await startNbdkit(t, [...options, 'file', path], { tcp: true });
      await using client = await connectNbd(address);
      const whole = Buffer.alloc(content.length);
      await client.read(0, whole);
      assert.ok(whole.equals(content));
      assert.deepEqual(client.contexts, options.length > 0 ? [] : ['base:allocation']);
    }
  });

  it('fills buffers of holes with zeros although they held something else', async (t) => {
    const { address } = await startNbdkit(t, ['memory', '4M']);
    await using client = await connectNbd(address);
    const into = Buffer.alloc(4 * MiB, 0xff);
    await client.read(0, into);
    assert.ok(into.every((byte) => byte === 0));
  });

  it('writes, zeroes, trims and flushes, and reads back what it wrote', async (t) => {
    const { address } = await startNbdkit(t, ['memory', '8M']);
    await using client = await connectNbd(address);
    const expected = Buffer.alloc(8 * MiB);
    const data = noise('write', 3 * MiB + 7);
    data.copy(expected, 1001);
    await client.write(1001, data, { fua: true });
    expected.fill(0, MiB, MiB + 12_345);
    await client.zero(MiB, 12_345);
    expected.fill(0, 2 * MiB, 2 * MiB + 1);
    await client.zero(2 * MiB, 1, { punch: false, fua: true });
    await client.trim(5 * MiB, MiB);
    await client.flush();
    await using second = await connectNbd(address);
    const found = Buffer.alloc(8 * MiB);
    await second.read(0, found);
    assert.ok(found.equals(expected));
  });

  it('writes real zeros where the server cannot zero', async (t) => {
    const { address } = await startNbdkit(t, ['--filter=nozero', 'memory', '1M', 'zeromode=none']);
    await using client = await connectNbd(address);
    await client.write(0, noise('full', MiB));
    await client.zero(1, MiB - 2);
    const found = Buffer.alloc(MiB);
    await client.read(0, found);
    const [first, last] = [noise('full', MiB)[0], noise('full', MiB)[MiB - 1]];
    assert.deepEqual([found[0], found[MiB - 1]], [first, last]);
    assert.ok(found.subarray(1, MiB - 1).every((byte) => byte === 0));
  });

  it('reads and writes at any byte although the server wants whole blocks', async (t) => {
    const policy = [
      'blocksize-error-policy=error',
      'blocksize-minimum=4096',
      'blocksize-preferred=4096',
      'blocksize-maximum=65536',
    ];
    const { address } = await startNbdkit(t, ['--filter=blocksize-policy', 'memory', '1M', ...policy]);
    await using client = await connectNbd(address);
    const expected = noise('blocks', MiB);
    await client.write(0, expected);
    const patches = [1, 4095, 4097, 70_001, 900_000].map((at) => ({ at, data: noise(`patch ${at}`, 5003) }));
    for (const { at, data } of patches) data.copy(expected, at);
    await Promise.all(patches.map(({ at, data }) => client.write(at, data)));
    expected.fill(0, 300_001, 400_003);
    await client.zero(300_001, 100_002);
    const found = Buffer.alloc(MiB - 3);
    await client.read(1, found);
    assert.ok(found.equals(expected.subarray(1, MiB - 2)));
  });

  it('tells the allocated ranges, clipped to what was asked for', async (t) => {
    const path = join(await temporaryFolder(t), 'sparse');
    await writeFile(path, '');
    await truncate(path, 64 * MiB);
    const { address } = await startNbdkit(t, ['file', path]);
    await using client = await connectNbd(address);
    await client.write(16 * MiB, noise('island', MiB));
    const holes = 3;
    assert.deepEqual(await collect(client.blockStatus('base:allocation', 0, 64 * MiB)), [
      { offset: 0, length: 16 * MiB, flags: holes },
      { offset: 16 * MiB, length: MiB, flags: 0 },
      { offset: 17 * MiB, length: 47 * MiB, flags: holes },
    ]);
    assert.deepEqual(await collect(client.blockStatus('base:allocation', 17 * MiB - 5, 10)), [
      { offset: 17 * MiB - 5, length: 5, flags: 0 },
      { offset: 17 * MiB, length: 5, flags: holes },
    ]);
  });

  it('pages through the states of a disk larger than one request may cover', async (t) => {
    const { address } = await startNbdkit(t, ['memory', '5000G']);
    await using client = await connectNbd(address);
    await client.write(4321 * 1024 * MiB, noise('far', 10));
    const extents = await collect(client.blockStatus('base:allocation', 0, client.sizeBytes));
    assert.equal(extents.length, 3);
    assert.equal(
      extents.reduce((sum, { length }) => sum + length, 0),
      client.sizeBytes,
    );
    assert.ok(extents[1]!.offset <= 4321 * 1024 * MiB && extents[1]!.flags === 0);
  });

  it('names offset and length of what the server cannot read, and goes on with the rest', async (t) => {
    const { address } = await startNbdkit(t, [
      '--filter=error',
      'memory',
      '1M',
      'error-pread=EIO',
      'error-pread-rate=100%',
    ]);
    await using client = await connectNbd(address);
    await assert.rejects(client.read(4096, Buffer.alloc(10)), failsWith('unreadable', { offset: 4096, length: 10 }));
    await client.write(0, noise('fine', 100));
  });

  it('tells a full target and a read-only one apart', async (t) => {
    const full = await startNbdkit(t, [
      '--filter=error',
      'memory',
      '1M',
      'error-pwrite=ENOSPC',
      'error-pwrite-rate=100%',
    ]);
    await using client = await connectNbd(full.address);
    await assert.rejects(client.write(7, Buffer.alloc(9)), failsWith('target-full', { offset: 7, length: 9 }));
    const fixed = await startNbdkit(t, ['-r', 'memory', '1M']);
    await using reader = await connectNbd(fixed.address);
    assert.equal(reader.readOnly, true);
    await assert.rejects(reader.write(0, Buffer.alloc(1)), failsWith('forbidden'));
    await assert.rejects(reader.read(MiB - 1, Buffer.alloc(2)), failsWith('usage'));
  });

  it('gives up on a request that is not answered in time', async (t) => {
    const { address } = await startNbdkit(t, ['--filter=delay', 'memory', '1M', 'rdelay=30']);
    await using client = await connectNbd(address, { requestTimeoutMs: 200 });
    const before = performance.now();
    await assert.rejects(client.read(512, Buffer.alloc(512)), failsWith('timeout', { offset: 512, length: 512 }));
    assert.ok(performance.now() - before < 2000);
    await assert.rejects(client.read(0, Buffer.alloc(1)), failsWith('timeout'));
  });

  it('ends at once on request', async (t) => {
    const { address } = await startNbdkit(t, ['--filter=delay', 'memory', '1M', 'rdelay=30']);
    const stop = new AbortController();
    const client = await connectNbd(address, { signal: stop.signal });
    const reading = client.read(0, Buffer.alloc(MiB));
    stop.abort();
    await assert.rejects(reading, failsWith('cancelled', { offset: 0, length: MiB }));
    const other = await connectNbd(address);
    const late = other.read(0, Buffer.alloc(1));
    await Promise.all([assert.rejects(late, failsWith('cancelled')), other.close()]);
  });

  it('reports a server that is killed while it is read, for each range, quickly', async (t) => {
    const { address, kill } = await startNbdkit(t, ['--filter=delay', 'memory', '64M', 'rdelay=30']);
    const client = await connectNbd(address);
    const reads = [0, 1, 2].map((i) => client.read(i * MiB, Buffer.alloc(MiB)));
    const write = client.write(5 * MiB, Buffer.alloc(MiB));
    const outcome = Promise.allSettled([...reads, write]);
    const before = performance.now();
    await kill();
    const errors = (await outcome).map((result) => (result as PromiseRejectedResult).reason as HoldfastError);
    assert.ok(performance.now() - before < 2000);
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['unreadable', 'unreadable', 'unreadable', 'target-failed'],
    );
    assert.deepEqual(
      errors.map(({ data }) => data.offset),
      [0, MiB, 2 * MiB, 5 * MiB],
    );
    await client.close();
  });

  it('lists exports and refuses an unknown one by name', async (t) => {
    const args = [
      '--filter=exportname',
      'memory',
      '1M',
      'exportname=alpha',
      'exportname=beta',
      'exportname-list=explicit',
      'exportname-strict=true',
    ];
    const { address } = await startNbdkit(t, args);
    assert.deepEqual(
      (await listNbdExports(address)).map(({ name }) => name),
      ['alpha', 'beta'],
    );
    await using client = await connectNbd({ ...address, exportName: 'beta' });
    assert.equal(client.sizeBytes, MiB);
    await assert.rejects(connectNbd({ ...address, exportName: 'gamma' }), failsWith('not-found'));
  });

  it('refuses a server that speaks only the oldest handshake', async (t) => {
    const { address } = await startNbdkit(t, ['-o', 'memory', '1M']);
    await assert.rejects(connectNbd(address), failsWith('protocol'));
  });

  it('tells that nothing listens, and that a peer does not speak NBD or does not speak at all', async (t) => {
    const folder = await temporaryFolder(t);
    await assert.rejects(connectNbd({ socket: join(folder, 'none'), exportName: '' }), failsWith('unreadable'));
    for (const [words, code] of [
      ['HTTP/1.1 400 Bad Request\r\n\r\n', 'protocol'],
      ['', 'timeout'],
    ] as const) {
      const server = createServer((socket) => void socket.write(words).valueOf()).listen(join(folder, `s${code}`));
      t.after(() => server.close());
      const address = { socket: join(folder, `s${code}`), exportName: '' };
      await assert.rejects(connectNbd(address, { connectTimeoutMs: 300 }), failsWith(code));
    }
  });
});

describe('the NBD client and qemu-nbd', qemu, () => {
  it('reads and writes a qcow2 image that qemu-img then finds whole and identical', async (t) => {
    const folder = await temporaryFolder(t);
    const [image, raw] = [join(folder, 'disk.qcow2'), join(folder, 'expected')];
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', image, '64M');
    const { address, child } = await startQemuNbd(t, ['-f', 'qcow2', '--discard=unmap', image]);
    const expected = Buffer.alloc(64 * MiB);
    {
      await using client = await connectNbd(address);
      for (const at of [0, 1_000_001, 33 * MiB + 3]) {
        const data = noise(`part ${at}`, 2 * MiB + 5);
        data.copy(expected, at);
        await client.write(at, data);
      }
      expected.fill(0, 34 * MiB, 34 * MiB + 65_536);
      await client.zero(34 * MiB, 65_536);
      await client.flush();
      const found = Buffer.alloc(64 * MiB);
      await client.read(0, found);
      assert.ok(found.equals(expected));
      await client.trim(0, 65_536);
    }
    child.kill('SIGTERM'); // lets it write its metadata
    await new Promise((resolve) => child.once('close', resolve));
    await must('qemu-img', 'check', '-q', image);
    await writeFile(raw, expected);
    await must('qemu-img', 'convert', '-O', 'raw', image, join(folder, 'found'));
    const found = await readFile(join(folder, 'found'));
    assert.ok(found.subarray(65_536).equals(expected.subarray(65_536)));
  });

  it('reads exactly the ranges that a dirty bitmap marks', async (t) => {
    const image = join(await temporaryFolder(t), 'disk.qcow2');
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', image, '1G');
    await must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 10M', image);
    await must('qemu-img', 'bitmap', '--add', '-g', '64K', image, 'since');
    await must('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 1M 64K', '-c', 'write -P 3 900M 1M', image);
    const { address } = await startQemuNbd(t, ['-r', '-f', 'qcow2', '-B', 'since', image]);
    const context = 'qemu:dirty-bitmap:since';
    assert.ok((await listNbdContexts(address, ['qemu:'])).includes(context));
    await using client = await connectNbd(address, { contexts: ['base:allocation', context] });
    const dirty = (await collect(client.blockStatus(context, 0, client.sizeBytes))).filter(({ flags }) => flags === 1);
    assert.deepEqual(
      dirty.map(({ offset, length }) => [offset, length]),
      [
        [MiB, 65_536],
        [900 * MiB, MiB],
      ],
    );
    const allocated = (await collect(client.blockStatus('base:allocation', 0, client.sizeBytes))).filter(
      ({ flags }) => flags === 0,
    );
    assert.deepEqual(
      allocated.map(({ offset, length }) => [offset, length]),
      [
        [0, 10 * MiB],
        [900 * MiB, MiB],
      ],
    );
    const into = Buffer.alloc(65_536);
    await client.read(MiB, into);
    assert.ok(into.every((byte) => byte === 2));
  });

  it('opens only the contexts that exist', async (t) => {
    const image = join(await temporaryFolder(t), 'disk.raw');
    await writeFile(image, noise('raw', MiB));
    const { address } = await startQemuNbd(t, ['-r', '-f', 'raw', image]);
    await using client = await connectNbd(address, { contexts: ['qemu:dirty-bitmap:none', 'base:allocation'] });
    assert.deepEqual(client.contexts, ['base:allocation']);
    assert.throws(() => client.blockStatus('qemu:dirty-bitmap:none', 0, 1), failsWith('usage'));
  });
});

describe('the NBD client and a server older than NBD_OPT_GO', () => {
  for (const noZeroes of [true, false]) {
    it(`opens its export by name ${noZeroes ? 'without' : 'with'} the padding of old`, async (t) => {
      const socket = join(await temporaryFolder(t), 's');
      const server = createServer((peer) => void serveOldWay(peer, noZeroes).catch(() => peer.destroy()));
      await new Promise<void>((resolve) => server.listen(socket, resolve));
      t.after(() => server.close());
      await using client = await connectNbd({ socket, exportName: 'old' });
      assert.deepEqual([client.sizeBytes, client.readOnly, client.contexts], [12_345, true, []]);
      const into = Buffer.alloc(5);
      await client.read(7, into);
      assert.equal(into.toString(), 'bytes');
    });
  }
});

/** Knows NBD_OPT_EXPORT_NAME and one read, and nothing else. */
async function serveOldWay(peer: Socket, noZeroes: boolean): Promise<void> {
  const inbox = new Inbox(1000);
  peer.on('data', (bytes: Buffer) => inbox.push(bytes));
  const hello = Buffer.alloc(18);
  hello.writeBigUInt64BE(MAGIC_SERVER, 0);
  hello.writeBigUInt64BE(MAGIC_OPTION, 8);
  hello.writeUInt16BE(noZeroes ? 3 : 1, 16);
  peer.write(hello);
  await inbox.take(4);
  for (;;) {
    const head = await inbox.take(16);
    const [option, body] = [head.readUInt32BE(8), await inbox.take(head.readUInt32BE(12))];
    if (option !== OPTION.exportName) peer.write(encodeOptionReply(option, REPLY.errUnsupported));
    else if (body.toString() === 'old') break;
  }
  const entry = Buffer.alloc(noZeroes ? 10 : 134);
  entry.writeBigUInt64BE(12_345n, 0);
  entry.writeUInt16BE(FLAG.hasFlags | FLAG.readOnly, 8);
  peer.write(entry);
  const request = await inbox.take(28);
  const reply = Buffer.alloc(16);
  reply.writeUInt32BE(MAGIC_SIMPLE_REPLY, 0);
  request.copy(reply, 8, 8, 16);
  peer.write(Buffer.concat([reply, Buffer.from('bytes')]));
}
