import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Contestant, Place } from './contestants.ts';
import type { ImageName, Images } from './images.ts';
import { type Cost, measure } from './measure.ts';
import { insertDisk, storedBytes } from './place.ts';

/** One measured run. */
export interface Outcome extends Omit<Cost, 'stdout' | 'stderr'> {
  /** Bytes by which the repository grew. */
  readonly grownBytes: number;
  /** For restores: the disk came out as it went in. Anything else is an error, not a figure. */
  readonly verified?: true;
  /** The JSON that ours prints last. */
  readonly details?: unknown;
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  /** What it starts from: nothing, or the state after `full`. */
  readonly from: 'empty' | 'full';
  /** Only contestants that take change lists. */
  readonly needsChangeLists?: boolean;
  /** Reads every byte of 1 TiB without them: only ours knows holes. */
  readonly oursOnly?: boolean;
  readonly image: ImageName;
  run(context: Context): Promise<Outcome>;
}

export interface Context {
  readonly contestant: Contestant;
  readonly place: Place;
  readonly images: Images;
  readonly scratch: string;
  readonly signal: AbortSignal;
}

export const MACHINE = 'bench';

export const SCENARIOS: readonly Scenario[] = [
  { name: 'full', title: 'full', from: 'empty', image: 'base', run: (context) => backup(context, 'base', true) },
  { name: 'known', title: 'again, unchanged', from: 'full', image: 'base', run: (context) => backup(context, 'base') },
  { name: 'day', title: 'day, full read', from: 'full', image: 'day', run: (context) => backup(context, 'day') },
  listed('day-list', 'day, change list', 'day'),
  {
    name: 'oltp',
    title: 'OLTP day, full read',
    from: 'full',
    image: 'oltp',
    run: (context) => backup(context, 'oltp'),
  },
  listed('oltp-list', 'OLTP day, change list', 'oltp'),
  {
    name: 'sibling',
    title: 'sibling',
    from: 'full',
    image: 'sibling',
    run: (context) => backup(context, 'sibling', false, 'sibling'),
  },
  { name: 'restore', title: 'restore to a sparse file', from: 'full', image: 'base', run: restore },
  {
    name: 'huge',
    title: '1 TiB sparse, full',
    from: 'empty',
    oursOnly: true,
    image: 'huge',
    run: (context) => backup(context, 'huge', true),
  },
  {
    name: 'huge-list',
    title: '1 TiB sparse, change list',
    from: 'empty',
    oursOnly: true,
    needsChangeLists: true,
    image: 'huge',
    run: async (context) => {
      await backup(context, 'huge', true);
      return backup(context, 'hugeDay', false, MACHINE, true);
    },
  },
];

function listed(name: string, title: string, image: ImageName): Scenario {
  return {
    name,
    title,
    from: 'full',
    needsChangeLists: true,
    image,
    run: (context) => backup(context, image, false, MACHINE, true),
  };
}

async function backup(
  { contestant, place, images, scratch, signal }: Context,
  image: ImageName,
  init = false,
  machine = MACHINE,
  byList = false,
): Promise<Outcome> {
  insertDisk(place, images.path(image));
  if (init) await measure(contestant.init(place), scratch, signal);
  // A TiB of holes is not worth warming; everything else is read once, so that all find it in memory alike.
  if (!image.startsWith('huge')) spawnSync('cat', [place.disk], { stdio: ['ignore', 'ignore', 'ignore'] });
  const before = init ? 0 : storedBytes(place.repo);
  const options = byList ? { machine, changed: images.changes(image).file } : { machine };
  const { stdout, stderr: _, ...cost } = await measure(contestant.backup(place, options), scratch, signal);
  const details = lastJson(stdout);
  return { ...cost, grownBytes: storedBytes(place.repo) - before, ...(details === undefined ? {} : { details }) };
}

async function restore({ contestant, place, images, scratch, signal }: Context): Promise<Outcome> {
  const { run, output } = contestant.restore(place, { machine: MACHINE });
  const { stdout, stderr: _, ...cost } = await measure(run, scratch, signal);
  const { status } = spawnSync('cmp', [output, images.path('base')]);
  if (status !== 0) throw new Error(`${contestant.title} restored something else than it had backed up`);
  rmSync(dirname(output) === place.dir ? output : dirname(output), { recursive: true });
  rmSync(join(place.dir, 'disk.img'), { force: true });
  const details = lastJson(stdout);
  return { ...cost, grownBytes: 0, verified: true, ...(details === undefined ? {} : { details }) };
}

function lastJson(stdout: string): unknown {
  const line = stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
