import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { must, noise, run } from '../peers/nbd.ts';
import { makePlace, type Place, type Running, type Said } from './holdfast.ts';

const MiB = 1024 * 1024;

function well(said: Said): Said {
  assert.equal(said.code, 0, `${said.stdout.toString().slice(-2000)}${said.stderr}`);
  return said;
}

/** A vault with one point of the machine `web`, whose disk is `disk`. */
async function withPoint(t: TestContext, disk = noise('disk', 300_000)): Promise<Place> {
  const place = await makePlace(t);
  await writeFile(place.path('disk'), disk);
  well(await place.vault('init'));
  well(await place.vault('backup', ...backupOf(place)));
  return place;
}

function backupOf(place: Place, disk = 'disk'): string[] {
  return ['--machine', 'web', '--disk', place.path(disk)];
}

/** The command failed as it should: this code, a message with these words, what to do, this exit code. */
function failed(said: Said, code: string, words: RegExp, exitCode = 1): void {
  assert.deepEqual([said.code, said.result.code], [exitCode, code], said.stdout.toString() + said.stderr);
  assert.match(said.result.message, words);
  assert.ok(said.result.remedy, `no word on what to do: ${said.result.message}`);
}

/** Nothing is damaged and nothing of ours is left lying about. */
async function isClean(place: Place): Promise<void> {
  const verified = well(await place.vault('verify', '--read-data'));
  assert.equal(verified.result.sound, true);
  const litter = await readdir(join(place.repo, '.holdfast', 'temporary'));
  assert.deepEqual(litter, [], 'temporary files');
  const partial = (await readdir(place.folder)).filter((name) => name.includes('.partial'));
  assert.deepEqual(partial, [], 'half restored files');
  assert.deepEqual(processesOf(place), [], 'processes');
}

/** Command lines of processes that have to do with the folder. */
function processesOf(place: Place): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => commandLine(pid))
    .filter((line) => line.includes(place.folder));
}

function commandLine(pid: string): string {
  try {
    return process.getBuiltinModule('node:fs').readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return ''; // it has ended meanwhile
  }
}

/** Resolves once the command reports that it reads, or on a fast machine that it has read and now uploads. */
async function untilReading({ child }: Running): Promise<void> {
  let text = '';
  for await (const piece of child.stdout!.iterator({ destroyOnReturn: false })) {
    text += piece;
    if (/"phase":"(reading|uploading)"/.test(text)) return;
  }
}

const isRoot = process.getuid?.() === 0;
const asRoot = isRoot ? false : 'needs root, to mount a small file system';

async function mountSmall(place: Place, name: string, bytes: number): Promise<string> {
  const folder = place.path(name);
  await mkdir(folder);
  await must('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'holdfast-test', folder);
  place.cleanups.push(() => must('umount', '-l', folder));
  return folder;
}

test('disks that cannot be backed up', async (t) => {
  const place = await withPoint(t);
  const backup = (disk: string) => place.vault('backup', '--machine', 'web', '--disk', disk);
  failed(await backup(place.path('nowhere')), 'not-found', /There is no disk .*nowhere/);
  failed(await backup(place.folder), 'usage', /neither a file nor a block device|is a folder/, 2);
  failed(await backup('/dev/null'), 'usage', /\/dev\/null/, 2);
  failed(await backup('nbd+unix:///x'), 'usage', /socket/, 2);
  failed(await backup('nbd+unix:///x?socket=/nowhere/s'), 'unreadable', /Cannot connect .*\/nowhere\/s/);
  if (!isRoot) {
    await writeFile(place.path('secret'), 'x');
    await chmod(place.path('secret'), 0);
    failed(await backup(place.path('secret')), 'forbidden', /No permission/);
  }
  await isClean(place);
});

test('a disk that shrinks while it is read makes no point', async (t) => {
  const place = await withPoint(t);
  const disk = place.path('shrinking');
  await writeFile(disk, noise('shrinking', 60 * MiB));
  const running = place.startVault('backup', ...backupOf(place, 'shrinking'), '--limit', '1M');
  await untilReading(running);
  await truncate(disk, MiB);
  failed(await running.said, 'source-changed', /had 62914560 bytes .* has now 1048576/);
  assert.equal(well(await place.vault('points')).result.points.length, 1);
  await isClean(place);
});

test('keys that do not fit', async (t) => {
  const place = await withPoint(t);
  const garbage = place.path('garbage');
  await writeFile(garbage, noise('garbage', 500));
  well(await place.vault('init', '--repo', place.path('other'), '--key-file', place.path('other-key')));
  const points = (key: string) => place.vault('points', '--key-file', place.path(key));
  failed(await points('other-key'), 'wrong-key', /belongs to vault vlt_/);
  failed(await points('garbage'), 'damaged', /not a Holdfast key file/);
  failed(await points('none'), 'not-found', /no key file/);
  failed(await points('.'), 'unreadable', /key file .* cannot be read/);
  failed(await place.vault('points', '--repo', place.path('empty')), 'not-found', /no folder/);
  await mkdir(place.path('empty'));
  failed(await place.vault('points', '--repo', place.path('empty')), 'not-found', /no vault/);
  await rm(place.path('empty'), { recursive: true });
  failed(
    await place.vault('backup', ...backupOf(place), '--repo', place.path('empty')),
    'not-found',
    /no vault|no folder/,
  );
  assert.ok(!existsSync(place.path('empty')), 'a mistyped repository is not made');
  const text = JSON.parse(await readFile(place.keyFile, 'utf8'));
  await writeFile(garbage, JSON.stringify({ ...text, keys: text.keys.slice(0, 40) }));
  failed(await points('garbage'), 'damaged', /key file/);
  await isClean(place);
});

test('an object `vault` that is gone or damaged is told from a wrong key', async (t) => {
  const place = await withPoint(t);
  const id = (await readdir(join(place.repo, 'v1')))[0]!;
  const path = join(place.repo, 'v1', id, 'vault');
  const text = await readFile(path, 'utf8');
  await rm(path);
  failed(await place.vault('points'), 'missing', /The object vault .* is gone/);
  await writeFile(path, text.replace('"formatVersion": 1', '"formatVersion": 2'));
  failed(await place.vault('points'), 'format-too-new', /format version 2/);
  await writeFile(path, text.slice(0, -20));
  failed(await place.vault('points'), 'damaged', /`vault`/);
  await writeFile(path, text.replace(/"publicSigningKey": "./, '"publicSigningKey": "_'.replace('_', 'A')));
  const said = await place.vault('points');
  if (said.code !== 0) failed(said, 'damaged', /`vault`/); // one in 64 keys begins with an A
  await writeFile(path, text);
  await isClean(place);
});

test('what is not in the vault', async (t) => {
  const place = await withPoint(t);
  const restore = (...args: string[]) => place.vault('restore', '--to', place.path('out'), ...args);
  failed(await restore('--machine', 'wep'), 'not-found', /no points/);
  failed(await restore('--machine', 'web', '--disk-index', '1'), 'not-found', /has 1 disk\(s\); there is no disk 1/);
  const unknown = 'pnt_01ARZ3NDEKTSV4RRFFQ69G5FAV';
  failed(await restore('--machine', 'web', '--point', unknown), 'not-found', new RegExp(unknown));
  failed(await place.vault('delete', '--point', unknown), 'not-found', new RegExp(unknown));
  failed(await place.vault('serve', '--point', unknown, '--socket', place.path('s')), 'not-found', new RegExp(unknown));
  assert.ok(!existsSync(place.path('out')));
  await isClean(place);
});

test('targets that cannot be written', async (t) => {
  const place = await withPoint(t);
  const restore = (to: string, ...args: string[]) => place.vault('restore', '--machine', 'web', '--to', to, ...args);
  failed(await restore(place.folder), 'target-failed', /is a folder/);
  failed(await restore(place.path('no/such/folder')), 'not-found', /folder does not exist/);
  failed(await restore('/proc/version'), 'not-found', /./);
  failed(await restore('nbd+unix:///x?socket=/nowhere/s'), 'unreadable', /Cannot connect .*\/nowhere\/s/);
  await writeFile(place.path('small'), 'small');
  failed(await restore(place.path('small'), '--rollback'), 'target-failed', /has 5 bytes; the disk needs 300000/);
  failed(await restore(place.path('nothing'), '--rollback'), 'not-found', /nothing/);
  assert.equal(await readFile(place.path('small'), 'utf8'), 'small', 'what cannot be rolled back stays as it is');
  await isClean(place);
});

test('change lists that do not fit', async (t) => {
  const place = await withPoint(t);
  const list = place.path('list.json');
  const backup = async (content: string, machine = 'web') => {
    await writeFile(list, content);
    return place.vault('backup', '--machine', machine, '--disk', place.path('disk'), '--changed', list);
  };
  const bytes = (offset: number, length: number) => JSON.stringify({ disks: [[{ offset, length }]] });
  failed(await backup('{"disks":[[],[]]}'), 'usage', /2 disk\(s\), the command of 1/, 2);
  failed(await backup('not json'), 'usage', /is not \{"disks"/, 2);
  failed(await backup('{"disk":[]}'), 'usage', /is not \{"disks"/, 2);
  failed(await backup(bytes(-1, 5)), 'usage', /is not \{"disks"/, 2);
  failed(await backup(bytes(0, 0.5)), 'usage', /is not \{"disks"/, 2);
  failed(await backup(bytes(0, 300_001)), 'usage', /beyond the end of disk 0/, 2);
  failed(await backup(bytes(400_000, 1)), 'usage', /beyond the end of disk 0/, 2);
  failed(await backup(bytes(0, 1), 'never seen'), 'usage', /no earlier point/, 2);
  await rm(list);
  const gone = await place.vault('backup', ...backupOf(place), '--changed', list);
  failed(gone, 'unreadable', /change list .* cannot be read/);
  failed(await place.vault('backup', ...backupOf(place), '--limit', 'fast'), 'usage', /"fast" is not a size/, 2);
  failed(await place.vault('backup', ...backupOf(place), '--limit', '0'), 'usage', /0/, 2);
  assert.equal(well(await place.vault('points')).result.points.length, 1);
  await isClean(place);
});

test('of two backups of one machine at once the second is told to wait; two machines do not disturb each other', async (t) => {
  const place = await withPoint(t);
  await writeFile(place.path('large'), noise('large', 24 * MiB));
  const first = place.startVault('backup', ...backupOf(place, 'large'), '--limit', '3M');
  await untilReading(first);
  const [second, other] = await Promise.all([
    place.vault('backup', ...backupOf(place)),
    place.vault('backup', '--machine', 'db', '--disk', place.path('large')),
  ]);
  failed(second, 'busy', /being backed up already/);
  well(other);
  well(await first.said);
  assert.equal(well(await place.vault('points')).result.points.length, 3);
  await isClean(place);
});

test('a target without room', { skip: asRoot }, async (t) => {
  const place = await withPoint(t, noise('large', 12 * MiB));
  const small = await mountSmall(place, 'small', 4 * MiB);
  const said = await place.vault('restore', '--machine', 'web', '--to', join(small, 'out'));
  failed(said, 'target-full', /no space left/);
  assert.ok(!existsSync(join(small, 'out')), 'no file looks whole');
  await isClean(place);
});

test('a repository without room: the backup fails, earlier points stay, and with room it goes on', {
  skip: asRoot,
}, async (t) => {
  const place = await makePlace(t);
  await mountSmall(place, 'repo', 9 * MiB);
  await writeFile(place.path('disk'), noise('disk', 3 * MiB));
  await writeFile(place.path('large'), noise('large', 20 * MiB));
  well(await place.vault('init'));
  well(await place.vault('backup', ...backupOf(place)));
  failed(await place.vault('backup', ...backupOf(place, 'large')), 'target-full', /No space left/);
  await isClean(place);
  await must('mount', '-o', `remount,size=${64 * MiB}`, place.repo);
  well(await place.vault('backup', ...backupOf(place, 'large')));
  await isClean(place);
});

test('a cache without room fails the backup with a word about the cache', { skip: asRoot }, async (t) => {
  const place = await withPoint(t);
  await writeFile(place.path('large'), noise('large', 40 * MiB));
  const cache = await mountSmall(place, 'small-cache', 64 * 1024);
  const said = await place.vault('backup', ...backupOf(place, 'large'), '--cache-dir', cache);
  failed(said, 'target-full', /small-cache/);
  await isClean(place);
});

test('Ctrl-C during a backup ends it soon with 130, and the next one goes on', async (t) => {
  const place = await withPoint(t);
  await writeFile(place.path('large'), noise('large', 40 * MiB));
  const running = place.startVault('backup', ...backupOf(place, 'large'), '--limit', '4M');
  await untilReading(running);
  const started = performance.now();
  running.child.kill('SIGINT');
  const said = await running.said;
  assert.equal(said.code, 130, said.stdout.toString().slice(-500));
  assert.equal(said.result.code, 'cancelled');
  assert.ok(performance.now() - started < 5000, 'within 5 s');
  await isClean(place);
  well(await place.vault('backup', ...backupOf(place, 'large')));
  await isClean(place);
});

test('Ctrl-C during a restore ends it soon with 130 and leaves no half file; an older file stays', async (t) => {
  const place = await withPoint(t, noise('large', 160 * MiB));
  const out = place.path('out');
  await writeFile(out, 'what was there');
  const running = place.startVault('restore', '--machine', 'web', '--to', out);
  while (!existsSync(`${out}.partial`)) await once(running.child.stdout!, 'data');
  running.child.kill('SIGINT');
  const said = await running.said;
  assert.equal(said.code, 130, said.stdout.toString().slice(-500));
  assert.equal(await readFile(out, 'utf8'), 'what was there');
  await isClean(place);
  well(await place.vault('restore', '--machine', 'web', '--to', out));
  assert.equal((await stat(out)).size, 160 * MiB);
  assert.equal((await run('cmp', out, place.path('disk'))).status, 0);
});
