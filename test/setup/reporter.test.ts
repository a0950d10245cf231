import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const reporter = fileURLToPath(new URL('reporter.ts', import.meta.url));

const SAMPLE = `
import { before, describe, test } from 'node:test';
describe('group', () => {
  test('good', () => {});
  test('bad', () => { throw new Error('it broke'); });
  test('absent', { skip: 'needs frobnicate: apt-get install frobnicate' }, () => {});
  test('silently absent', { skip: true }, () => {});
});
describe('hooked', () => { before(() => { throw new Error('hook broke'); }); test('never ran', () => {}); });
test('later', { todo: true }, () => { throw new Error('not yet'); });
`;

test('the report shows failures in full, skipped tests with their reasons, and the counts last', () => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-reporter-'));
  try {
    writeFileSync(join(folder, 'sample.test.mjs'), SAMPLE);
    const args = ['--test', `--test-reporter=${reporter}`, '--test-reporter-destination=stdout', 'sample.test.mjs'];
    // Without NODE_TEST_CONTEXT: the inner runner must not take itself for a part of the one that runs this test.
    const { NODE_TEST_CONTEXT: _, ...env } = process.env;
    const { status, stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8', env });
    assert.equal(status, 1);
    assert.match(stdout, /✖ sample\.test\.mjs \(2 passed, 3 FAILED, 2 skipped, .* s\)/);
    assert.match(stdout, /Failed:\n✖ sample\.test\.mjs: bad\n {4}Error: it broke/);
    assert.match(stdout, /✖ sample\.test\.mjs: hooked\n {4}Error: hook broke/);
    assert.match(stdout, /Skipped:\n﹣ needs frobnicate: apt-get install frobnicate\n {4}sample\.test\.mjs: absent\n/);
    assert.match(stdout, /﹣ no reason given\n {4}sample\.test\.mjs: silently absent\n/);
    assert.match(
      stdout,
      /ℹ tests 6\n(ℹ .*\n)*ℹ pass 1\nℹ fail 1\nℹ cancelled 1\nℹ skipped 2\nℹ todo 1\nℹ duration_ms .*\n$/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});
