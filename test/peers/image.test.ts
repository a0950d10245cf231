import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { isHoldfastError } from '#contract/errors.ts';
import { formatNbdUri } from '#edge/nbd/address.ts';
import { connectNbd } from '#edge/nbd/client.ts';
import { serveNbd } from '#edge/nbd/server.ts';
import type { DiskLocator, Extent } from '#edge/sources/disk.ts';
import { mapByFilefrag, mapByQemu } from '#edge/sources/image/holes.ts';
import { type OpenedImage, openImage } from '#edge/sources/image/image.ts';
import { sweepOrphans } from '#edge/sources/image/qemu-nbd.ts';
import { openDiskReader, openDiskWriter } from '#edge/sources/open-disk.ts';
import { isGone, must, needs, noise, run, startNbdkit, startQemuNbd, temporaryFolder } from './nbd.ts';

const MiB = 1024 * 1024;
const qemu = { skip: needs('qemu-nbd', 'qemu-img', 'qemu-io') };
const failsWith = (code: string) => (error: unknown) => {
  assert.ok(isHoldfastError(error, code as 'usage'), `${error}`);
  assert.ok(error.remedy, 'no remedy');
  return true;
};

async function readAll(locator: DiskLocator, sizeBytes: number): Promise<Buffer> {
  const reader = await openDiskReader(locator);
  const content = Buffer.alloc(sizeBytes);
  try {
    assert.equal(reader.sizeBytes, sizeBytes);
    for (let at = 0; at < sizeBytes; at += MiB) await reader.read(at, content.subarray(at, at + MiB));
    return content;
  } finally {
    await reader.close();
  }
}

/** Content with everything outside of the allocated ranges taken for zeros, as a backup would. */
async function readAllocated({ locator, sizeBytes, allocated }: OpenedImage): Promise<Buffer> {
  const content = Buffer.alloc(sizeBytes);
  const reader = await openDiskReader(locator);
  for (const { offset, length } of allocated ?? [{ offset: 0, length: sizeBytes }]) {
    await reader.read(offset, content.subarray(offset, offset + length));
  }
  await reader.close();
  return content;
}

const total = (extents: readonly Extent[]) => extents.reduce((sum, { length }) => sum + length, 0);

/** A raw file with islands of data in holes. */
async function sparseFile(t: TestContext, sizeBytes = 48 * MiB + 77): Promise<{ path: string; content: Buffer }> {
  const path = join(await temporaryFolder(t), 'disk.img');
  const content = Buffer.alloc(sizeBytes);
  await writeFile(path, '');
  await truncate(path, sizeBytes);
  await using file = await open(path, 'r+');
  for (const at of [0, 10 * MiB + 3, sizeBytes - 5]) {
    const data = noise(`island ${at}`, Math.min(200_001, sizeBytes - at));
    data.copy(content, at);
    await file.write(data, 0, data.length, at);
  }
  return { path, content };
}

describe('an image source of raw files', () => {
  it('reads a raw file of any size, and all of it where there are no holes', async (t) => {
    const path = join(await temporaryFolder(t), 'disk');
    for (const sizeBytes of [1, 513, MiB + 1]) {
      const content = noise(`raw ${sizeBytes}`, sizeBytes);
      await writeFile(path, content);
      await using image = await openImage(path);
      assert.deepEqual([image.format, image.sizeBytes, image.allocated], ['raw', sizeBytes, undefined]);
      assert.ok((await readAll(image.locator, sizeBytes)).equals(content));
    }
  });

  it('finds the data of a sparse file, fresh from the writer’s cache', async (t) => {
    const { path, content } = await sparseFile(t);
    await using image = await openImage(path);
    assert.ok(image.allocated, 'not known to be sparse');
    assert.ok(total(image.allocated) < 2 * MiB);
    assert.ok((await readAllocated(image)).equals(content));
  });

  for (const [name, map, program] of [
    ['SEEK_DATA', mapByQemu, 'qemu-img'],
    ['FIEMAP', mapByFilefrag, 'filefrag'],
  ] as const) {
    it(`never takes data for a hole, by ${name}, whatever was written, preallocated or punched just before`, {
      skip: needs(program),
    }, async (t) => {
      const folder = await temporaryFolder(t);
      const path = join(folder, 'disk');
      for (let round = 0; round < 12; round++) {
        const sizeBytes = 8 * MiB + round * 517;
        const content = Buffer.alloc(sizeBytes);
        await writeFile(path, '');
        await truncate(path, sizeBytes);
        const file = await open(path, 'r+');
        const die = noise(`die ${round}`, 64);
        for (let step = 0; step < 16; step++) {
          const at = (die.readUInt32BE(step * 4) % (sizeBytes - 70_000)) & (step % 2 ? ~0 : ~4095);
          const length = 1 + ((die[step]! * 257) % 66_000);
          if (step % 4 === 3 && existsSync('/usr/bin/fallocate')) {
            const punch = step % 8 === 3 ? ['--punch-hole'] : ['--keep-size'];
            const { status } = await run('fallocate', ...punch, '-o', String(at), '-l', String(length), path);
            if (punch[0] === '--punch-hole' && status === 0) content.fill(0, at, at + length);
          } else {
            const data = noise(`data ${round} ${step}`, length);
            data.copy(content, at);
            await file.write(data, 0, length, at);
          }
        }
        await file.close();
        const allocated = await map(path, sizeBytes);
        if (allocated === undefined) return t.skip('this file system cannot tell');
        const found = await readAllocated({
          locator: { kind: 'file', path },
          sizeBytes,
          allocated,
        } as unknown as OpenedImage);
        assert.ok(found.equals(content), `round ${round}`);
      }
    });
  }

  it('reads everything where the file system cannot tell of holes', {
    skip: existsSync('/dev/shm') ? needs('filefrag') : 'needs /dev/shm',
  }, async (t) => {
    const folder = await mkdtemp('/dev/shm/holdfast-test-');
    t.after(() => run('rm', '-r', folder));
    const path = join(folder, 'disk');
    await writeFile(path, 'x');
    await truncate(path, MiB);
    assert.equal(await mapByFilefrag(path, MiB), undefined);
  });

  it('a file of nothing but a hole has nothing to read', { skip: needs('filefrag', 'qemu-img') }, async (t) => {
    const path = join(await temporaryFolder(t), 'disk');
    await writeFile(path, '');
    await truncate(path, 1024 * 1024 * MiB);
    await using image = await openImage(path);
    assert.deepEqual(image.allocated, []);
    assert.deepEqual(await mapByFilefrag(path, 1024 * 1024 * MiB), []);
  });

  it('reads a block device', {
    skip: process.getuid?.() === 0 ? needs('losetup') : 'needs root for a loop device',
  }, async (t) => {
    const path = join(await temporaryFolder(t), 'backing');
    const content = noise('device', MiB + 4096);
    await writeFile(path, content);
    const { status, stdout } = await run('losetup', '--find', '--show', path);
    if (status !== 0) return t.skip('no loop device to be had here');
    const device = stdout.trim();
    t.after(() => run('losetup', '-d', device));
    await using image = await openImage(device);
    assert.deepEqual([image.format, image.sizeBytes, image.allocated], ['raw', MiB + 4096, undefined]);
    assert.ok((await readAll(image.locator, image.sizeBytes)).equals(content));
    const writer = await openDiskWriter({ kind: 'file', path: device }, { createSizeBytes: MiB });
    await writer.write(1, Buffer.from('changed'));
    await writer.zero(8192, 5000);
    await writer.flush();
    await writer.close();
    const expected = Buffer.from(content);
    expected.write('changed', 1);
    expected.fill(0, 8192, 13_192);
    assert.ok((await readAll(image.locator, image.sizeBytes)).equals(expected));
    await assert.rejects(
      openDiskWriter({ kind: 'file', path: device }, { createSizeBytes: 2 * MiB }),
      failsWith('target-full'),
    );
  });

  it('says what is wrong with a path', async (t) => {
    const folder = await temporaryFolder(t);
    await assert.rejects(openImage(join(folder, 'none')), failsWith('not-found'));
    await assert.rejects(openImage(folder), failsWith('usage'));
    await assert.rejects(openImage('/dev/null'), failsWith('usage'));
    await assert.rejects(openImage('nbd+unix:///?socket=/nowhere'), failsWith('unreadable'));
    await assert.rejects(openImage(join(folder, 'none'), { signal: AbortSignal.abort() }), (e) =>
      isHoldfastError(e, 'cancelled'),
    );
  });
});

describe('an image source of formats', qemu, () => {
  for (const [format, name] of [
    ['qcow2', 'disk.qcow2'],
    ['vmdk', 'disk.vmdk'],
    ['vhdx', 'no-extension'],
    ['vdi', 'wrong.iso'],
    ['vpc', 'disk.vhd'],
  ] as const) {
    it(`reads ${format} by its content, holes left out`, async (t) => {
      const { path, content } = await sparseFile(t, 48 * MiB);
      const image = join(dirname(path), name);
      const options = format === 'vpc' ? ['-o', 'force_size=on'] : [];
      await must('qemu-img', 'convert', '-f', 'raw', '-O', format, ...options, path, image);
      await using opened = await openImage(image);
      assert.deepEqual([opened.format, opened.sizeBytes], [format, 48 * MiB]);
      // QEMU's VHDX driver tells nothing of its holes.
      const most = format === 'vhdx' ? 48 * MiB : 20 * MiB;
      assert.ok(total(opened.allocated!) <= most, `${total(opened.allocated!)} bytes allocated`);
      assert.ok((await readAllocated(opened)).equals(content));
      assert.ok((await readAll(opened.locator, opened.sizeBytes)).equals(content));
    });
  }

  it('reads a chain of images that lie together, and paths with colons and spaces', async (t) => {
    const folder = await temporaryFolder(t);
    const [base, top] = [join(folder, 'base.qcow2'), join(folder, 'json:to p.qcow2')];
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', base, '8M');
    await must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', base);
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', join(folder, 'top.qcow2'));
    await must('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 512k 1M', join(folder, 'top.qcow2'));
    await rename(join(folder, 'top.qcow2'), top);
    await using image = await openImage(top);
    assert.deepEqual(image.allocated, [{ offset: 0, length: MiB + MiB / 2 }]);
    const content = await readAll(image.locator, 8 * MiB);
    assert.deepEqual([content[0], content[MiB / 2], content[MiB], content[2 * MiB]], [1, 2, 2, 0]);
  });

  it('does not follow a reference that a guest may have written into its disk', async (t) => {
    const folder = await temporaryFolder(t);
    const inside = join(folder, 'images');
    await mkdir(inside);
    const secret = join(folder, 'secret.raw');
    await writeFile(secret, noise('secret', MiB));
    const create = (name: string, backing: string) =>
      must('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-b', backing, '-F', 'raw', join(inside, name), '1M');
    await create('a.qcow2', secret);
    await create('b.qcow2', '../secret.raw');
    await create('c.qcow2', `json:{"driver":"raw","file":{"driver":"file","filename":"${secret}"}}`);
    await symlink(secret, join(inside, 'link.raw'));
    await create('d.qcow2', 'link.raw');
    await copyFile(secret, join(inside, 'neighbour'));
    await create('e.img', 'neighbour'); // no name says that this is no raw disk
    await must(
      'qemu-img',
      'create',
      '-q',
      '-f',
      'qcow2',
      '-o',
      `data_file=${secret},data_file_raw=on`,
      join(inside, 'f.qcow2'),
      '1M',
    );
    await writeFile(
      join(inside, 'g.vmdk'),
      `# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 2048 FLAT "${secret}" 0\n`,
    );
    await create('h-base.qcow2', secret);
    await must(
      'qemu-img',
      'create',
      '-q',
      '-u',
      '-f',
      'qcow2',
      '-b',
      'h-base.qcow2',
      '-F',
      'qcow2',
      join(inside, 'h.qcow2'),
      '1M',
    );
    for (const name of ['a.qcow2', 'b.qcow2', 'c.qcow2', 'd.qcow2', 'e.img', 'f.qcow2', 'g.vmdk', 'h.qcow2']) {
      await assert.rejects(openImage(join(inside, name)), failsWith('forbidden'), name);
    }
    await copyFile(join(inside, 'a.qcow2'), join(inside, 'guest.raw'));
    await assert.rejects(openImage(join(inside, 'guest.raw')), failsWith('usage'));
    await using raw = await openImage(join(inside, 'guest.raw'), { format: 'raw' });
    assert.equal(raw.locator.kind, 'file');
    await using allowed = await openImage(join(inside, 'a.qcow2'), { allowReferences: true });
    const truth = await readFile(secret);
    // Creating f.qcow2 gave the file to QEMU; whatever it holds now is what must be read.
    assert.ok((await readAll(allowed.locator, MiB)).equals(truth));
    await using stated = await openImage(join(inside, 'e.img'), { format: 'qcow2' });
    assert.ok((await readAll(stated.locator, MiB)).equals(noise('secret', MiB)));
  });

  it('opens for several readers at once, and leaves neither program nor folder behind', async (t) => {
    const { path, content } = await sparseFile(t, 16 * MiB);
    const disk = join(dirname(path), 'disk.qcow2');
    await must('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', path, disk);
    const image = await openImage(disk);
    assert.ok(image.locator.kind === 'nbd');
    const folder = dirname(image.locator.address.socket!);
    const pid = Number(await readFile(join(folder, 'pid'), 'utf8'));
    const all = await Promise.all(Array.from({ length: 8 }, () => readAll(image.locator, 16 * MiB)));
    assert.ok(all.every((found) => found.equals(content)));
    await image.close();
    assert.deepEqual([existsSync(folder), await isGone(pid)], [false, true]);
  });

  it('does not outlive the process that opened it, and the next one removes its folder', async (t) => {
    const disk = join(await temporaryFolder(t), 'disk.qcow2');
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '8M');
    const script = `import { openImage } from '#edge/sources/image/image.ts';
      console.log((await openImage(process.argv[1])).locator.address.socket); setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', script, disk], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => owner.kill('SIGKILL'));
    const folder = dirname(
      await new Promise<string>((resolve) => owner.stdout.once('data', (bytes) => resolve(String(bytes).trim()))),
    );
    const pid = Number(await readFile(join(folder, 'pid'), 'utf8'));
    assert.equal(await isGone(pid), false);
    const ended = new Promise((resolve) => owner.once('close', resolve));
    owner.kill('SIGKILL');
    await ended;
    for (let i = 0; i < 100 && !(await isGone(pid)); i++) await sleep(20);
    assert.equal(await isGone(pid), true);
    await sweepOrphans();
    assert.equal(existsSync(folder), false);
  });

  it('says that an image is held by a running machine, damaged, or that its backing file is gone', async (t) => {
    const folder = await temporaryFolder(t);
    const held = join(folder, 'held.qcow2');
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', held, '1M');
    await startQemuNbd(t, ['-f', 'qcow2', held]);
    await assert.rejects(openImage(held), failsWith('busy'));
    const torn = join(folder, 'torn.qcow2');
    await writeFile(torn, (await readFile(held)).subarray(0, 30));
    await assert.rejects(openImage(torn), failsWith('unreadable'));
    const lone = join(folder, 'lone.qcow2');
    await must('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-b', 'gone.qcow2', '-F', 'qcow2', lone, '1M');
    await assert.rejects(openImage(lone), failsWith('unreadable'));
    assert.deepEqual(
      (await readdir(tmpdir())).filter((name) => name.startsWith(`holdfast-image-${process.pid}-`)),
      [],
    );
  });

  it('names the package where qemu-nbd is absent', async (t) => {
    const folder = await temporaryFolder(t);
    const disk = join(folder, 'disk.qcow2');
    await must('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M');
    const script = `import { openImage } from '#edge/sources/image/image.ts';
      await openImage(process.argv[1]).catch((e) => console.log(e.code, e.remedy));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script, disk], {
      env: { PATH: folder },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const said = await new Promise((resolve) => child.stdout.once('data', (bytes) => resolve(String(bytes).trim())));
    assert.equal(said, 'needs-program Install the Debian package qemu-utils');
  });
});

describe('an image source of NBD exports', { skip: needs('nbdkit') }, () => {
  it('takes a URI for a path, and reads what is allocated', async (t) => {
    const { address } = await startNbdkit(t, ['memory', '64M']);
    const content = Buffer.alloc(64 * MiB);
    {
      await using client = await connectNbd(address);
      noise('there', MiB).copy(content, 20 * MiB);
      await client.write(20 * MiB, content.subarray(20 * MiB, 21 * MiB));
    }
    await using image = await openImage(formatNbdUri(address));
    assert.equal(image.format, 'nbd');
    assert.deepEqual(image.allocated, [{ offset: 20 * MiB, length: MiB }]);
    assert.ok((await readAllocated(image)).equals(content));
  });

  it('leaves out only what is promised to read as zeros: a hole alone does not promise it', async (t) => {
    const socket = join(await temporaryFolder(t), 's');
    const states = [
      { length: 100, hole: true, zero: false },
      { length: 200, hole: true, zero: true },
      { length: 300, hole: false, zero: true },
      { length: 400, hole: false, zero: false },
    ];
    const backend = { sizeBytes: 1000, readOnly: true, read: () => {}, blockStatus: () => states };
    await using server = await serveNbd({ listen: { socket }, exports: new Map([['d', backend]]) });
    await using image = await openImage(formatNbdUri(server.address));
    assert.deepEqual(image.allocated, [
      { offset: 0, length: 100 },
      { offset: 600, length: 400 },
    ]);
  });

  it('reads everything where the server tells nothing', async (t) => {
    const { address } = await startNbdkit(t, ['--no-sr', 'memory', '1M']);
    await using image = await openImage(formatNbdUri(address));
    assert.equal(image.allocated, undefined);
  });

  it('is written like any other disk', async (t) => {
    const { address } = await startNbdkit(t, ['memory', '4M']);
    const locator = { kind: 'nbd', address } as const;
    const writer = await openDiskWriter(locator, { createSizeBytes: 4 * MiB });
    await writer.write(5, noise('w', MiB));
    await writer.zero(100, 1000);
    await writer.flush();
    await writer.close();
    const expected = Buffer.alloc(4 * MiB);
    noise('w', MiB).copy(expected, 5);
    expected.fill(0, 100, 1100);
    assert.ok((await readAll(locator, 4 * MiB)).equals(expected));
    await assert.rejects(openDiskWriter(locator, { createSizeBytes: 5 * MiB }), failsWith('target-full'));
    const reader = await openDiskReader(locator);
    await assert.rejects(async () => reader.read(4 * MiB - 1, Buffer.alloc(2)), failsWith('source-changed'));
    await reader.close();
  });
});

// Root may read everything: whether permission is denied is only told to others.
it('says that permission is missing', {
  skip: process.getuid?.() === 0 ? 'needs a user other than root' : false,
}, async (t) => {
  const path = join(await temporaryFolder(t), 'disk');
  await writeFile(path, 'x');
  await chmod(path, 0);
  await assert.rejects(openImage(path), failsWith('forbidden'));
});
