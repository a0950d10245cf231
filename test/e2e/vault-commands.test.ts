import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { must, needs, noise, run, startNbdkit, startQemuNbd } from '../peers/nbd.ts';
import { makePlace, type Place, type Said } from './holdfast.ts';

const PAGE = 4096;

function well(said: Said): Said {
  assert.equal(said.code, 0, `${said.stdout.toString().slice(-2000)}${said.stderr}`);
  return said;
}

/** A disk with noise, zeros and a short last page. */
function makeDisk(seed: string, pages = 300): Buffer {
  const disk = Buffer.alloc(pages * PAGE + 512);
  noise(seed, 60 * PAGE).copy(disk);
  noise(`${seed}!`, 20 * PAGE).copy(disk, 200 * PAGE);
  disk.write('the end', disk.length - 10);
  return disk;
}

async function withVault(t: TestContext): Promise<Place> {
  const place = await makePlace(t);
  well(await place.vault('init'));
  return place;
}

async function restored(place: Place, ...args: readonly string[]): Promise<Buffer> {
  well(await place.vault('restore', '--machine', 'web', '--to', place.path('restored'), ...args));
  return await readFile(place.path('restored'));
}

test('a vault is made with a key file that only its owner can read, and its keys are never shown', async (t) => {
  const place = await makePlace(t);
  const made = well(await place.run('vault', 'init', '--repo', place.repo, '--key-file', place.keyFile));
  assert.equal((await stat(place.keyFile)).mode & 0o777, 0o600);
  const { keys } = JSON.parse(await readFile(place.keyFile, 'utf8'));
  assert.ok(!made.stdout.includes(keys) && !made.stderr.includes(keys));
  assert.equal((await place.vault('init')).code, 1, 'a second vault in the same folder');
});

test('a vault with a passphrase opens with it alone', async (t) => {
  const place = await makePlace(t);
  const [good, bad] = [place.path('pass'), place.path('bad')];
  await writeFile(good, 'correct horse\n');
  await writeFile(bad, 'wrong horse\n');
  const made = well(await place.vault('init', '--passphrase-file', good));
  assert.equal(made.result.protection, 'passphrase');
  const [with_, without, wrong] = await Promise.all([
    place.vault('points', '--passphrase-file', good),
    place.vault('points'),
    place.vault('points', '--passphrase-file', bad),
  ]);
  assert.equal(with_.code, 0);
  assert.deepEqual([without.code, without.result.code], [1, 'wrong-key']);
  assert.match(without.result.remedy, /--passphrase-file/);
  assert.deepEqual([wrong.code, wrong.result.code], [1, 'wrong-key']);
  for (const said of [made, with_, without, wrong]) assert.ok(!`${said.stdout}${said.stderr}`.includes('horse'));
});

test('raw disks are backed up, changed, backed up by change list, listed, checked, restored and deleted', async (t) => {
  const place = await withVault(t);
  const [a, b] = [makeDisk('a'), makeDisk('b', 40)];
  const [pathA, pathB] = [place.path('a.img'), place.path('b.img')];
  await writeFile(pathA, a);
  await writeFile(pathB, b);
  const disks = ['--machine', 'web', '--disk', pathA, '--disk', pathB];
  const full = well(await place.vault('backup', ...disks));
  assert.equal(full.result.type, 'result');
  assert.equal(full.result.kind, 'full');
  assert.ok(full.lines.slice(0, -1).every((line) => line.type === 'progress'));

  const first = Buffer.from(a);
  noise('change', 5000).copy(a, 7 * PAGE + 100);
  await writeFile(pathA, a);
  const list = place.path('changed.json');
  await writeFile(list, JSON.stringify({ disks: [[{ offset: 7 * PAGE + 100, length: 5000 }], []] }));
  const second = well(await place.vault('backup', ...disks, '--changed', list));
  assert.equal(second.result.kind, 'incremental');
  assert.equal(second.result.stats.readBytes, 2 * PAGE, 'two pages hold the change');

  const points = well(await place.vault('points')).result.points;
  assert.deepEqual(
    points.map(({ point }: { point: string }) => point),
    [full.result.point, second.result.point],
  );
  assert.ok((await restored(place)).equals(a), 'the latest point, the first disk, unless told otherwise');
  assert.ok((await restored(place, '--point', 'latest', '--disk-index', '1')).equals(b));
  assert.ok((await restored(place, '--point', full.result.point, '--disk-index', '0')).equals(first));

  const piped = await place.run(
    ...['recover', '--repo', place.repo, '--key-file', place.keyFile, '--machine', 'web', '--to', '-'],
  );
  assert.equal(piped.code, 0);
  assert.ok(piped.stdout.equals(a), 'recover to standard output');

  // Rolled back: the changed disk becomes the first point's again, and only what differs is written.
  const rolled = well(
    await place.vault('restore', '--machine', 'web', '--point', full.result.point, '--to', pathA, '--rollback'),
  );
  assert.ok((await readFile(pathA)).equals(first));
  assert.equal(rolled.result.stats.writtenBytes, 2 * PAGE);

  assert.equal(well(await place.vault('verify')).result.sound, true);
  const read = well(await place.vault('verify', '--read-data'));
  assert.equal(read.result.sound, true);
  assert.ok(read.result.readBytes > 0);
  const stats = well(await place.vault('stats')).result;
  assert.deepEqual([stats.machines, stats.points], [1, 2]);

  const deleted = well(await place.vault('delete', '--point', full.result.point));
  assert.equal(deleted.result.deleted, full.result.point);
  assert.equal(deleted.result.wasLatest, false);
  assert.equal(well(await place.vault('points', '--machine', 'web')).result.points.length, 1);
  assert.ok((await restored(place)).equals(a), 'what is left restores');
});

test('whoever deletes the latest point is told that a change list no longer fits', async (t) => {
  const place = await withVault(t);
  await writeFile(place.path('disk'), makeDisk('deleted', 20));
  const { point } = well(await place.vault('backup', '--machine', 'web', '--disk', place.path('disk'))).result;
  const deleted = well(await place.vault('delete', '--point', point)).result;
  assert.equal(deleted.wasLatest, true);
  assert.match(deleted.warning, /without --changed/);
});

test('a copy of the vault restores with the key file alone, from a folder that cannot be written to', async (t) => {
  const place = await withVault(t);
  const disk = makeDisk('copy', 50);
  await writeFile(place.path('disk'), disk);
  well(await place.vault('backup', '--machine', 'web', '--disk', place.path('disk')));
  const [copy, key] = [place.path('copy'), place.path('key-copy')];
  await mkdir(copy);
  await cp(`${place.repo}/v1`, `${copy}/v1`, { recursive: true });
  await cp(place.keyFile, key);
  await must('chmod', '-R', 'a-w', copy);
  const before = await must('find', copy);
  const said = await place.run(
    ...['recover', '--repo', copy, '--key-file', key, '--machine', 'web', '--to', place.path('out')],
    ...['--cache-dir', place.path('other-cache')],
  );
  assert.equal(said.code, 0, said.stderr);
  assert.ok((await readFile(place.path('out'))).equals(disk));
  const after = await must('find', copy);
  await must('chmod', '-R', 'u+w', copy); // or it could not be removed
  assert.equal(after, before, 'nothing was written to the copy');
});

const noQemu = needs('qemu-img', 'qemu-nbd');
test('a qcow2 image is backed up and restored as one', { skip: noQemu }, async (t) => {
  const place = await withVault(t);
  const [raw, image, out] = [place.path('raw'), place.path('disk.qcow2'), place.path('out.qcow2')];
  await writeFile(raw, makeDisk('qcow2', 500));
  await must('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, image);
  well(await place.vault('backup', '--machine', 'web', '--disk', image));
  well(await place.vault('restore', '--machine', 'web', '--to', out, '--format', 'qcow2'));
  assert.equal(JSON.parse(await must('qemu-img', 'info', '--output=json', out)).format, 'qcow2');
  assert.equal((await run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', image, out)).status, 0);
  assert.ok(!existsSync(`${out}.partial`));
});

const noNbdkit = needs('nbdkit', 'qemu-nbd');
test('NBD exports are backed up and restored to, rolled back too', { skip: noNbdkit }, async (t) => {
  const place = await withVault(t);
  const disk = makeDisk('nbd', 299).subarray(0, 300 * PAGE - 3584);
  await writeFile(place.path('disk'), disk);
  const source = await startNbdkit(t, ['-e', 'disk', 'file', place.path('disk')]);
  well(
    await place.vault(
      ...['backup', '--machine', 'web'],
      ...['--disk', `nbd+unix:///disk?socket=${source.address.socket}`],
    ),
  );
  const target = place.path('target');
  await writeFile(target, noise('what was there before', disk.length));
  const peer = await startQemuNbd(t, ['-f', 'raw', '-x', 'out', target]);
  const uri = `nbd+unix:///out?socket=${peer.address.socket}`;
  well(await place.vault('restore', '--machine', 'web', '--to', uri));
  assert.ok((await readFile(target)).equals(disk));
  const again = well(await place.vault('restore', '--machine', 'web', '--to', uri, '--rollback'));
  assert.equal(again.result.stats.writtenBytes, 0, 'nothing differs');
});

const noClients = needs('nbdinfo', 'nbdcopy', 'qemu-img');
test('a point is served to foreign NBD clients, read-only, until Ctrl-C', { skip: noClients }, async (t) => {
  const place = await withVault(t);
  const [a, b] = [makeDisk('served'), makeDisk('too', 30)];
  await writeFile(place.path('a'), a);
  await writeFile(place.path('b'), b);
  const backup = await place.vault(
    ...['backup', '--machine', 'web', '--disk', place.path('a'), '--disk', place.path('b')],
  );
  const socket = place.path('s');
  const serving = place.startVault('serve', '--point', well(backup).result.point, '--socket', socket);
  await once(serving.child.stdout!, 'data');
  const info = JSON.parse(await must('nbdinfo', '--json', `nbd+unix:///disk0?socket=${socket}`)).exports[0];
  assert.deepEqual([info['export-size'], info.is_read_only], [a.length, true]);
  const compared = await run(
    ...(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', place.path('a')] as const),
    `nbd+unix:///disk0?socket=${socket}`,
  );
  assert.equal(compared.status, 0, compared.stdout + compared.stderr);
  await must('nbdcopy', `nbd+unix:///disk1?socket=${socket}`, place.path('copied'));
  assert.ok((await readFile(place.path('copied'))).equals(b));
  serving.child.kill('SIGINT');
  const said = await serving.said;
  assert.ok([0, 130].includes(said.code!), `${said.code}`);
  assert.ok(!existsSync(socket), 'the socket is gone');
  assert.equal(said.result.served, true);
});

test('wrong usage ends with 2 and says how it is done', async (t) => {
  const place = await makePlace(t);
  for (const args of [
    ['backup'],
    ['backup', '--machine', 'web'],
    ['backup', '--machin', 'web', '--disk', 'x'],
    ['restore', '--machine', 'web'],
    ['restore', '--machine', 'web', '--to', 'x', '--point', 'yesterday'],
    ['restore', '--machine', 'web', '--to', 'x', '--disk-index', '-1'],
    ['restore', '--machine', 'web', '--to', 'x', '--disk-index', ''],
    ['restore', '--machine', 'web', '--to', '-', '--rollback'],
    ['restore', '--machine', 'web', '--to', 'x', '--format', 'vmdk'],
    ['delete', '--point', 'nonsense'],
    ['nonsense'],
  ]) {
    const said = await place.vault(args[0]!, ...args.slice(1));
    assert.deepEqual([said.code, said.result.code], [2, 'usage'], args.join(' '));
    assert.ok(said.result.remedy, `${args.join(' ')}: what to do`);
    assert.equal(said.stderr, '');
  }
});

test('messages for people go to standard error, with what to do', async (t) => {
  const place = await makePlace(t);
  await chmod(place.folder, 0o700);
  const said = await place.run('vault', 'points', '--repo', place.repo, '--key-file', place.keyFile);
  assert.equal(said.code, 1);
  assert.equal(said.stdout.length, 0);
  assert.match(said.stderr, /There is no key file .*\n\s+What to do: /);
});
