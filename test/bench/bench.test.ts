import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { Contestant } from './contestants.ts';
import { writtenBytes } from './floors.ts';
import { goals } from './goals.ts';
import { makeImages } from './images.ts';
import { measure, parseTime } from './measure.ts';
import { markdown } from './report.ts';
import { Results } from './results.ts';
import { runRound } from './round.ts';
import { type Outcome, SCENARIOS } from './scenarios.ts';
import { ratioOf, spreadOf } from './statistics.ts';

const dir = mkdtempSync(join(tmpdir(), 'holdfast-bench-test-'));
after(() => rmSync(dir, { recursive: true }));
const signal = new AbortController().signal;
const lacks = ['/usr/bin/time', '/usr/sbin/debugfs'].find((path) => !existsSync(path));
const skip = lacks === undefined ? false : `needs ${lacks}: apt-get install time e2fsprogs`;

/** Backs up by copying, never in place: its figures are known beforehand. */
function copier(name: string, restoreCommand = 'cp repo/$0 restored.img'): Contestant {
  const sh = (place: { dir: string }, script: string, machine = '') => {
    return { program: 'sh', args: ['-ec', script, machine], cwd: place.dir };
  };
  return {
    name,
    title: name,
    takesChangeLists: true,
    version: () => '1',
    init: (place) => sh(place, 'mkdir repo'),
    backup: (place, { machine, changed = '' }) =>
      sh(
        place,
        `cp --remove-destination disk.img repo/$0; echo '{"stats":{"stageSeconds":{"read":1.5}},"changed":"${changed}"}'`,
        machine,
      ),
    restore: (place, { machine }) => ({
      run: sh(place, restoreCommand, machine),
      output: join(place.dir, 'restored.img'),
    }),
  };
}

function outcome(wall: number, more: Partial<Outcome> = {}): Outcome {
  return { wall, cpu: wall, peakBytes: 1e6, grownBytes: 100, ...more };
}

test('medians and ratios are taken round by round', () => {
  assert.deepEqual(spreadOf([5, 1, 3]), { median: 3, min: 1, max: 5 });
  assert.deepEqual(spreadOf([4, 1]), { median: 2.5, min: 1, max: 4 });
  assert.deepEqual(ratioOf([6, 30, 9], [2, 10, 1]), { median: 3, min: 3, max: 9 });
  assert.equal(ratioOf([], [1]), undefined);
});

test('the figures of GNU time and zstd are read in their units', () => {
  assert.deepEqual(parseTime('1.50 1.00 0.25 2048\n'), { wall: 1.5, cpu: 1.25, peakBytes: 2048 * 1024 });
  assert.throws(() => parseTime('Command terminated'));
  assert.equal(writtenBytes('x.img : 35.2% (  8.00 GiB =>   2.00 KiB, /dev/null)'), 2048);
  assert.equal(writtenBytes('abc  x.img'), undefined);
});

test('a program that fails is an error with its last words, not a figure', { skip }, async () => {
  const failing = { program: 'sh', args: ['-c', 'echo no such disk >&2; exit 3'] };
  await assert.rejects(measure(failing, dir, signal), /ended with 3\nno such disk/);
});

test('a whole round measures every scenario, and the report shows the goals beside the figures', { skip }, async () => {
  const images = await makeImages(join(dir, 'images'), 32 * 2 ** 20, signal, () => {});
  const work = join(dir, 'work');
  mkdirSync(work);
  const results = new Results();
  const scenarios = SCENARIOS.filter(({ name }) => !name.startsWith('huge'));
  const contestants = [copier('ours'), copier('restic')];
  await runRound({ work, images, contestants, scenarios, results, signal, say: () => {} });
  for (const { name } of scenarios) assert.equal(results.of('ours', name).length, 1, name);
  assert.equal(results.of('ours', 'full')[0]!.grownBytes, images.sizeBytes);
  assert.equal(results.of('ours', 'day')[0]!.grownBytes, 0, 'the same machine overwrites its copy');
  assert.equal(results.of('ours', 'sibling')[0]!.grownBytes, images.sizeBytes, 'starts from the saved full');
  assert.equal(results.of('ours', 'restore')[0]!.verified, true);
  const { changed } = results.of('ours', 'oltp-list')[0]!.details as { changed: string };
  assert.ok(statSync(changed).size > 0);
  const text = markdown({ results, images, contestants, scenarios, rounds: 1, machine: ['a machine'] });
  assert.match(text, /full: stores no more than restic \| 1\.00 × \| yes/);
  assert.match(text, /OLTP day, change list \| read 1\.50 s/);

  const broken = [copier('restic', 'cp repo/$0 restored.img; printf x | dd of=restored.img conv=notrunc')];
  const restores = SCENARIOS.filter(({ name }) => name === 'restore');
  await assert.rejects(
    runRound({ work, images, contestants: broken, scenarios: restores, results, signal, say: () => {} }),
    /restored something else/,
  );

  const again = await makeImages(join(dir, 'images'), 32 * 2 ** 20, signal, () => assert.fail('built again'));
  assert.deepEqual(again.base, images.base);
});

test('goals compare the right figures and say when something was not measured', () => {
  const results = new Results();
  results.add('ours', 'full', outcome(10, { peakBytes: 500 * 2 ** 20 }));
  results.add('restic', 'full', outcome(31, { grownBytes: 90 }));
  results.add('ours', 'oltp-list', outcome(1, { grownBytes: 1200 }));
  const images = {
    sizeBytes: 8 * 2 ** 30,
    base: { path: '', sizeBytes: 0, files: 0, realBytes: 0, databaseBytes: 0, madeUpBytes: 0 },
    path: () => '',
    changes: () => ({ file: '', bytes: 1000 }),
  };
  const found = new Map(goals(results, images).map(({ text, figure, met }) => [text, `${figure}: ${met}`]));
  assert.equal(found.get('full: at least 3 × as fast as restic'), '3.10 ×: true');
  assert.equal(found.get('full: stores no more than restic'), '1.11 ×: false');
  assert.equal(found.get('full: at least 2 × as fast as borg'), 'not measured: undefined');
  assert.equal(found.get('OLTP day by change list: grows by at most 1.25 × the dirty pages'), '1.20 ×: true');
  assert.equal(found.get('full: peak memory at most 400 MiB + 2 bytes a chunk'), '524 MB: false');
});
