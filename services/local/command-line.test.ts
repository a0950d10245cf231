import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Command, CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { runCommandLine } from './command-line.ts';
import { VERBS, type Verb } from './commands/registry.ts';

const sail: Command = {
  summary: 'Sail somewhere',
  usage: 'Usage: holdfast sail <verb>',
  verbs: { home: { summary: 'Sail home', usage: 'Usage: holdfast sail home [--fast]' } },
  run: async (argv, io) => {
    io.stdout.write(`sailing ${argv.join(' ')}\n`);
    return 7;
  },
};

function verb(run: Command['run']): Verb {
  return { load: async () => ({ ...sail, run }) };
}

async function runLine(argv: string[], verbs: Readonly<Record<string, Verb>>, signal = new AbortController().signal) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const io: CommandIo = { stdout, stderr, stdin: new PassThrough(), signal, isTty: false };
  const code = await runCommandLine({ verbs, version: '1.2.3', io }, argv);
  return { code, out: String(stdout.read() ?? ''), err: String(stderr.read() ?? '') };
}

const verbs = {
  sail: { load: async () => sail },
  home: { load: async () => sail, prefix: ['home'], summary: 'Go home' },
};

test('a verb runs with its arguments and its exit code is the result', async () => {
  assert.deepEqual(await runLine(['sail', 'west', '--far'], verbs), { code: 7, out: 'sailing west --far\n', err: '' });
});

test('a short name runs the sub-verb it stands for', async () => {
  assert.equal((await runLine(['home', '--fast'], verbs)).out, 'sailing home --fast\n');
});

test('help lists every verb, and shows the usage of a verb or sub-verb without running it', async () => {
  const { code, out } = await runLine(['--help'], verbs);
  assert.equal(code, 0);
  assert.match(out, /sail {6}Sail somewhere\n {2}home {6}Go home/);
  assert.equal((await runLine(['sail', '--help'], verbs)).out, 'Usage: holdfast sail <verb>\n');
  assert.equal((await runLine(['sail', 'home', '-h'], verbs)).out, 'Usage: holdfast sail home [--fast]\n');
  assert.equal((await runLine(['help', 'sail', 'home'], verbs)).out, 'Usage: holdfast sail home [--fast]\n');
  assert.equal((await runLine(['home', '--help'], verbs)).out, 'Usage: holdfast sail home [--fast]\n');
  assert.equal((await runLine(['sail', '--', '--help'], verbs)).code, 7);
});

test('no verb shows the help on stderr and is wrong usage', async () => {
  const { code, out, err } = await runLine([], verbs);
  assert.deepEqual([code, out], [2, '']);
  assert.match(err, /Usage: holdfast <command>/);
});

test('the version is printed', async () => {
  assert.deepEqual(await runLine(['--version'], verbs), { code: 0, out: 'holdfast 1.2.3\n', err: '' });
});

test('an unknown verb is wrong usage and the nearest one is suggested', async () => {
  const { code, err } = await runLine(['sial'], verbs);
  assert.equal(code, 2);
  assert.match(err, /Unknown command sial\n {2}What to do: Did you mean sail\?/);
  assert.equal((await runLine(['constructor'], verbs)).code, 2);
});

test('a failure says what happened, what was tried and what to do', async () => {
  const failing = verb(async () => {
    throw new HoldfastError('not-found', 'No such ship', { tried: '3 harbours', remedy: 'Build one' });
  });
  assert.deepEqual(await runLine(['sail'], { sail: failing }), {
    code: 1,
    out: '',
    err: 'holdfast: No such ship\n  Tried: 3 harbours\n  What to do: Build one\n',
  });
});

test('with --json a failure is one object on stdout', async () => {
  const failing = verb(async () => {
    throw new HoldfastError('usage', 'No such ship', { remedy: 'Build one', data: { ship: 'Argo' } });
  });
  const { code, out, err } = await runLine(['sail', '--json'], { sail: failing });
  assert.deepEqual([code, err], [2, '']);
  assert.deepEqual(JSON.parse(out), {
    type: 'error',
    code: 'usage',
    message: 'No such ship',
    remedy: 'Build one',
    data: { ship: 'Argo' },
  });
});

test('an unexpected error is called a bug', async () => {
  const failing = verb(async () => {
    throw new TypeError('x is not a ship');
  });
  const { code, err } = await runLine(['sail'], { sail: failing });
  assert.equal(code, 1);
  assert.match(err, /x is not a ship\n {2}What to do: This is a bug/);
});

test('an interrupted command ends with 130, however it noticed', async () => {
  for (const error of [new HoldfastError('cancelled', 'Stopped'), new DOMException('Interrupted', 'AbortError')]) {
    const interruption = new AbortController();
    const stopping = verb(async () => {
      interruption.abort(error);
      throw error;
    });
    assert.equal((await runLine(['sail'], { sail: stopping }, interruption.signal)).code, 130);
  }
});

test('a failure that is not the interruption stays a failure after Ctrl-C', async () => {
  const interruption = new AbortController();
  interruption.abort();
  const failing = verb(async () => {
    throw new HoldfastError('damaged', 'Broken');
  });
  assert.equal((await runLine(['sail'], { sail: failing }, interruption.signal)).code, 1);
});

test('a verb whose file is missing is reported as an installation that is not whole', async () => {
  const file = './no-such-file.ts';
  const absent: Verb = { load: () => import(file) };
  const { code, err } = await runLine(['sail'], { sail: absent });
  assert.equal(code, 1);
  assert.match(err, /cannot be loaded.*\n.*npm ci/);
  assert.match((await runLine(['--help'], { sail: absent })).out, /sail {6}\(not installed\)/);
});

for (const [name, { load }] of Object.entries(VERBS)) {
  const command = await load().catch((error) =>
    error.code === 'ERR_MODULE_NOT_FOUND' ? undefined : Promise.reject(error),
  );
  test(`${name} says in its help what it is for and how it is used`, {
    skip: command ? false : 'not built yet',
  }, () => {
    assert.match(command!.summary, /^[A-Z].*[^.]$/);
    assert.match(command!.usage, /^(Usage: )?(\.\/)?holdfast /m);
    assert.equal(typeof command!.run, 'function');
  });
}
