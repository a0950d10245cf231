import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Clock } from '#ports/clock.ts';
import type { Progress } from '../engine/request.ts';
import { describeProgress, progressLine } from './progress-line.ts';

const progress: Progress = {
  phase: 'reading',
  doneBytes: 1_500_000_000,
  totalBytes: 6_200_000_000,
  transferredBytes: 700_000_000,
  bytesPerSecond: 612_000_000,
  secondsLeft: 7.2,
  bottleneck: 'compress',
};

function screen(isTty: boolean) {
  const stderr = Object.assign(new PassThrough(), { columns: 40 });
  let nowMs = 0;
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => nowMs, sleep: async () => {} };
  const line = progressLine({ stderr, isTty }, clock, 'db01');
  return { line, passMs: (ms: number) => (nowMs += ms), written: () => String(stderr.read() ?? '') };
}

test('the line names phase, percent, bytes, rate, time left and bottleneck', () => {
  assert.equal(
    describeProgress(progress),
    'reading · 24 % · 1.50 GB of 6.20 GB · 700 MB sent · 612 MB/s · 8 s left · limited by compress',
  );
  assert.equal(
    describeProgress({ ...progress, phase: 'restoring', bytesPerSecond: 0, secondsLeft: null, bottleneck: null }),
    'restoring · 24 % · 1.50 GB of 6.20 GB · 700 MB fetched',
  );
});

test('the line is drawn over itself, at most five times a second, within the width of the terminal', () => {
  const { line, passMs, written } = screen(true);
  line.show(progress);
  passMs(199);
  line.show(progress);
  const first = written();
  assert.equal(first, `\r\x1b[2K${`db01: ${describeProgress(progress)}`.slice(0, 39)}`);
  passMs(1);
  line.show(progress);
  assert.equal(written(), first);
});

test('clearing wipes the line once, and the next progress is drawn at once', () => {
  const { line, written } = screen(true);
  line.show(progress);
  written();
  line.clear();
  line.clear();
  assert.equal(written(), '\r\x1b[2K');
  line.show(progress);
  assert.match(written(), /db01/);
});

test('nothing is drawn where there is no terminal', () => {
  const { line, written } = screen(false);
  line.show(progress);
  line.clear();
  assert.equal(written(), '');
});
