import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const launcher = fileURLToPath(new URL('../../holdfast', import.meta.url));
const sleeper = fileURLToPath(new URL('../fixtures/sleeper.ts', import.meta.url));
const bareEnvironment = { PATH: '/usr/bin:/bin' };
const folder = mkdtempSync(join(tmpdir(), 'holdfast-launcher-'));
after(() => rmSync(folder, { recursive: true }));

function run(program: string, args: string[], env = bareEnvironment) {
  const { status, stdout, stderr } = spawnSync(program, args, { env, encoding: 'utf8', cwd: '/' });
  return { status, stdout, stderr };
}

async function started(verb: string): Promise<{ child: ChildProcess; nextLine: () => Promise<string | undefined> }> {
  const child = spawn(process.execPath, [sleeper, verb], { stdio: ['ignore', 'pipe', 'pipe'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return { child, nextLine: async () => (await lines.next()).value };
}

test('the launcher runs without Node 24 on the PATH, from any folder', () => {
  const { status, stdout } = run(launcher, ['--version']);
  assert.match(stdout, /^holdfast \d+\.\d+\.\d+\n$/);
  assert.equal(status, 0);
});

test('the launcher runs through a symbolic link', () => {
  const link = join(folder, 'hf');
  symlinkSync(launcher, link);
  assert.equal(run(link, ['--version']).status, 0);
});

const olderNode = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => existsSync(path));
test('the launcher runs when it is handed to another Node', { skip: olderNode ? false : 'no other Node here' }, () => {
  assert.match(run(olderNode!, [launcher, '--version']).stdout, /^holdfast /);
  assert.equal(run(olderNode!, [launcher, 'nonsense']).status, 2);
});

test('without its packages the launcher says what to do and ends with 2', () => {
  const copy = join(folder, 'holdfast');
  copyFileSync(launcher, copy);
  const { status, stdout, stderr } = run(copy, ['--version']);
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /npm ci/);
});

test('wrong usage ends with 2 and arguments with blanks arrive whole', () => {
  const { status, stderr } = run(launcher, ['no such verb']);
  assert.equal(status, 2);
  assert.match(stderr, /Unknown command no such verb/);
});

test('the first Ctrl-C asks the command to stop and the exit code is 130', async () => {
  const { child, nextLine } = await started('polite');
  assert.equal(await nextLine(), 'ready');
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [130, null]);
});

test('a request to terminate ends with 143', async () => {
  const { child, nextLine } = await started('polite');
  await nextLine();
  child.kill('SIGTERM');
  assert.deepEqual(await once(child, 'exit'), [143, null]);
});

test('the second Ctrl-C ends at once a command that does not listen', async () => {
  const { child, nextLine } = await started('deaf');
  await nextLine();
  child.kill('SIGINT');
  assert.equal(await nextLine(), 'asked');
  child.kill('SIGINT');
  assert.deepEqual(await once(child, 'exit'), [130, null]);
});

test('a reader that goes away does not stop the work', async () => {
  const { child, nextLine } = await started('talkative');
  await nextLine();
  child.stdout!.destroy();
  let stderr = '';
  child.stderr!.on('data', (data) => (stderr += data));
  assert.deepEqual(await once(child, 'close'), [5, null]);
  assert.equal(stderr, 'done\n');
});

test('all output is delivered and the process ends although something still idles', () => {
  const { status, stdout } = spawnSync(process.execPath, [sleeper, 'open'], { encoding: 'utf8', timeout: 10_000 });
  assert.deepEqual([status, stdout.length], [3, 300_000]);
});
