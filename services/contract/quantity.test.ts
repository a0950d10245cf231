import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isHoldfastError } from './errors.ts';
import { formatBytes, formatRate, formatSeconds, formatShare, parseBytes } from './quantity.ts';

test('bytes are shown in decimal units with three significant digits, and never as 1000 of one', () => {
  const shown = [0, 999, 1000, 999_499, 999_500, 6_214_000_000, 99_960_000, 2 ** 50].map(formatBytes);
  assert.deepEqual(shown, ['0 B', '999 B', '1.00 kB', '999 kB', '1.00 MB', '6.21 GB', '100 MB', '1.13 PB']);
  assert.equal(formatRate(412_300_000), '412 MB/s');
});

test('durations are shown in the two units that matter', () => {
  const shown = [0, 0.418, 9.996, 59.96, 245, 3600 * 3 + 12 * 60, 86_400 * 2 + 3600 * 4].map(formatSeconds);
  assert.deepEqual(shown, ['0.00 s', '0.42 s', '10.0 s', '1 min 00 s', '4 min 05 s', '3 h 12 min', '2 d 4 h']);
});

test('shares keep a digit when they are small', () => {
  assert.deepEqual([0, 0.042, 0.0999, 0.42, 1].map(formatShare), ['0.0 %', '4.2 %', '10 %', '42 %', '100 %']);
});

test('sizes are read with binary units', () => {
  assert.deepEqual(['1048576', '64k', '1.5M', '2G', '2GiB', '1 TiB'].map(parseBytes), [
    1_048_576,
    65_536,
    1.5 * 2 ** 20,
    2 * 2 ** 30,
    2 * 2 ** 30,
    2 ** 40,
  ]);
});

test('what is not a size is refused as wrong usage', () => {
  for (const text of ['', 'G', '-1', '2X', '0.3', '1e99', '99999999T'])
    assert.throws(
      () => parseBytes(text),
      (error) => isHoldfastError(error, 'usage'),
      text,
    );
});
