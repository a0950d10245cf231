import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Run } from './measure.ts';

/** One contestant's folder for one scenario. */
export interface Place {
  readonly dir: string;
  readonly repo: string;
  /** Its caches and settings: nobody's home is touched, and no cache is older than the run. */
  readonly home: string;
  /** The disk to back up, under the same name every day, as a disk has. */
  readonly disk: string;
}

export interface BackupOptions {
  readonly machine: string;
  /** A file with the changed extents, for those that can use one. */
  readonly changed?: string;
}

/** A program that backs up a disk and restores it. All encrypt and authenticate what they store. */
export interface Contestant {
  readonly name: string;
  readonly title: string;
  /** Its version, or undefined if it is not installed. */
  version(): string | undefined;
  readonly takesChangeLists: boolean;
  init(place: Place): Run;
  backup(place: Place, options: BackupOptions): Run;
  /** Restores the machine's latest point; `output` is where the disk comes out. */
  restore(place: Place, options: BackupOptions): { readonly run: Run; readonly output: string };
}

const LAUNCHER = fileURLToPath(new URL('../../holdfast', import.meta.url));

const ours: Contestant = {
  name: 'ours',
  title: 'Holdfast',
  takesChangeLists: true,
  version: () => (answers(LAUNCHER, ['vault', '--help']) === undefined ? undefined : answers(LAUNCHER, ['--version'])),
  init: (place) => oursRun(place, 'init', []),
  backup: (place, { machine, changed }) =>
    oursRun(place, 'backup', [
      ...['--machine', machine, '--disk', place.disk, '--json'],
      ...(changed === undefined ? [] : ['--changed', changed]),
    ]),
  restore: (place, { machine }) => {
    const output = join(place.dir, 'restored.img');
    return { run: oursRun(place, 'restore', ['--machine', machine, '--to', output, '--json']), output };
  },
};

function oursRun({ dir, repo, home }: Place, verb: string, args: readonly string[]): Run {
  return {
    program: LAUNCHER,
    args: ['vault', verb, '--repo', repo, '--key-file', join(dir, 'vault.key'), ...args],
    env: { HOME: home, XDG_CACHE_HOME: join(home, 'cache') },
  };
}

const restic: Contestant = {
  name: 'restic',
  title: 'restic',
  takesChangeLists: false,
  version: () => answers('restic', ['version'])?.split(' compiled')[0],
  init: (place) => resticRun(place, ['init']),
  // --force: read the disk although its name and time stamps may look unchanged.
  backup: (place, { machine }) => resticRun(place, ['backup', '--force', '--host', machine, 'disk.img']),
  restore: (place, { machine }) => {
    const target = join(place.dir, 'restored');
    const sparse = answers('restic', ['restore', '--help'])?.includes('--sparse') ? ['--sparse'] : [];
    return {
      run: resticRun(place, ['restore', 'latest', '--host', machine, '--target', target, ...sparse]),
      output: join(target, 'disk.img'),
    };
  },
};

function resticRun({ dir, repo, home }: Place, args: readonly string[]): Run {
  return {
    program: 'restic',
    args: ['--repo', repo, '--quiet', ...args],
    cwd: dir,
    env: { HOME: home, RESTIC_PASSWORD: 'benchmark', RESTIC_CACHE_DIR: join(home, 'cache') },
  };
}

function borg(name: string, title: string, chunker: string): Contestant {
  const run = ({ dir, home }: Place, args: readonly string[]): Run => ({
    program: 'borg',
    args,
    cwd: dir,
    env: {
      HOME: home,
      BORG_BASE_DIR: home,
      BORG_PASSPHRASE: 'benchmark',
      BORG_RELOCATED_REPO_ACCESS_IS_OK: 'yes',
      BORG_EXIT_CODES: 'modern',
    },
  });
  return {
    name,
    title,
    takesChangeLists: false,
    version: () => answers('borg', ['--version']),
    init: (place) => run(place, ['init', '--encryption=repokey', place.repo]),
    backup: (place, { machine }) =>
      run(place, [
        ...['create', '--compression=zstd,1', `--chunker-params=${chunker}`, '--files-cache=disabled'],
        ...[`${place.repo}::${machine}-{utcnow}`, 'disk.img'],
      ]),
    restore: (place, { machine }) => ({
      run: { ...run(place, ['-c', BORG_RESTORE, 'restore', place.repo, machine]), program: 'sh' },
      output: join(place.dir, 'restored', 'disk.img'),
    }),
  };
}

/** borg names archives one by one and restores into the current folder. */
const BORG_RESTORE = `mkdir -p restored && cd restored &&
  name=$(borg list --short --last 1 --glob-archives "$2-*" "$1") && exec borg extract --sparse "$1::$name"`;

export const CONTESTANTS: readonly Contestant[] = [
  ours,
  restic,
  borg('borg', 'borg (fixed 4 MiB, zstd 1)', 'fixed,4194304'),
  borg('borg-buzhash', 'borg (buzhash, zstd 1)', 'buzhash,19,23,21,4095'),
];

function answers(program: string, args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync(program, args, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
