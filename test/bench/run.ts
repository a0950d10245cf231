/** `npm run bench`: Holdfast beside restic and borg on the same disks. See `--help`. */

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HoldfastError } from '#contract/errors.ts';
import { parseBytes } from '#contract/quantity.ts';
import { parseArguments } from '#edge/commands/arguments.ts';
import { didYouMean } from '#edge/commands/suggestion.ts';
import { CONTESTANTS } from './contestants.ts';
import { makeImages } from './images.ts';
import { describeMachine } from './machine.ts';
import { markdown } from './report.ts';
import { Results } from './results.ts';
import { runFloors, runRound } from './round.ts';
import { SCENARIOS } from './scenarios.ts';

const USAGE = `Usage: npm run bench -- [options]

  --size SIZE         size of the disk (default 8G)
  --rounds N          interleaved rounds (default 3)
  --only A,B          scenarios: ${SCENARIOS.map(({ name }) => name).join(', ')}, floors
  --contestants A,B   ${CONTESTANTS.map(({ name }) => name).join(', ')} (default: all that are installed)
  --dir DIR           where disks and repositories go; disks stay there for the next run
  --out FILE          the report (default docs/benchmarks.md for a run of 8G with everything, else none)
`;

const DEFAULT_SIZE = '8G';
const REPORT = fileURLToPath(new URL('../../docs/benchmarks.md', import.meta.url));

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function choose<T extends { readonly name: string }>(text: string | undefined, all: readonly T[], what: string): T[] {
  if (text === undefined) return [...all];
  return text.split(',').map((name) => {
    const found = all.find((one) => one.name === name);
    if (found !== undefined) return found;
    const known = all.map((one) => one.name);
    throw new HoldfastError('usage', `Unknown ${what} ${name}`, { remedy: didYouMean(name, known, '--help') });
  });
}

async function main(argv: string[], signal: AbortSignal): Promise<void> {
  const { values } = parseArguments(
    {
      command: 'bench',
      options: {
        size: { type: 'string', default: DEFAULT_SIZE },
        rounds: { type: 'string', default: '3' },
        only: { type: 'string' },
        contestants: { type: 'string' },
        dir: { type: 'string', default: join(tmpdir(), 'holdfast-bench') },
        out: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    },
    argv,
  );
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new HoldfastError('usage', `--rounds ${values.rounds} is not a number of rounds`, {
      remedy: 'Take 1 to 100',
    });
  }
  const floors = { name: 'floors' };
  const wanted = choose(values.only, [...SCENARIOS, floors], 'scenario');
  const scenarios = SCENARIOS.filter((one) => wanted.includes(one));
  const contestants = choose(values.contestants, CONTESTANTS, 'contestant').filter((one) => {
    const installed = one.version() !== undefined;
    if (!installed) say(`${one.title} is not installed: left out`);
    return installed;
  });

  const dir = resolve(values.dir);
  const work = join(dir, 'work');
  const images = await makeImages(join(dir, 'images'), parseBytes(values.size), signal, say);
  const results = new Results();
  try {
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`);
      rmSync(work, { recursive: true, force: true });
      mkdirSync(work, { recursive: true });
      const all = { work, images, contestants, scenarios, results, signal, say };
      if (wanted.includes(floors)) await runFloors(all);
      await runRound(all);
    }
  } finally {
    rmSync(work, { recursive: true, force: true });
    writeFileSync(join(dir, 'results.json'), JSON.stringify(results, null, 1));
  }
  const shown = scenarios.filter(({ name }) => contestants.some((one) => results.of(one.name, name).length > 0));
  const text = markdown({ results, images, contestants, scenarios: shown, rounds, machine: describeMachine(dir) });
  process.stdout.write(text);
  const whole = values.size === DEFAULT_SIZE && values.only === undefined && values.contestants === undefined;
  const out = values.out ?? (whole ? REPORT : undefined);
  if (out !== undefined) {
    mkdirSync(dirname(out), { recursive: true });
    writeFileSync(out, text);
  }
}

const interruption = new AbortController();
process.once('SIGINT', () => interruption.abort());
process.once('SIGTERM', () => interruption.abort());
try {
  await main(process.argv.slice(2), interruption.signal);
} catch (error) {
  if (interruption.signal.aborted) process.exitCode = 130;
  else if (error instanceof HoldfastError) {
    say(`bench: ${error.message}${error.remedy === undefined ? '' : `\n  What to do: ${error.remedy}`}`);
    process.exitCode = error.code === 'usage' ? 2 : 1;
  } else throw error;
}
