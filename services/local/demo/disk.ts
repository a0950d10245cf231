import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { formatBytes } from '#contract/quantity.ts';
import { placeOf } from './chance.ts';
import { chooseFolders, type Folder, inOrderOf, onDisk, readableFolders } from './files.ts';
import { makeDatabase, makeFiles } from './made-up.ts';
import { runProgram } from './program.ts';

export interface DiskPlan {
  /** Where the raw image is written; an existing file is replaced. */
  readonly path: string;
  readonly sizeBytes: number;
  /** Bytes of files on it; default 72 % of the size. */
  readonly contentBytes?: number;
  /** The same seed on the same machine gives the same disk. */
  readonly seed: string;
  /** Folders to take files from; default: the system's software. */
  readonly roots?: readonly string[];
  readonly signal?: AbortSignal;
  /** Called for every file written. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export interface BuiltDisk {
  readonly path: string;
  readonly sizeBytes: number;
  readonly files: number;
  /** Bytes of files of this machine. */
  readonly realBytes: number;
  /** Bytes of a made-up database, and of files made up because the machine has too few. */
  readonly databaseBytes: number;
  readonly madeUpBytes: number;
}

/** What a file system needs for itself: beyond this share of files, mke2fs or debugfs would run out of blocks. */
const MAX_CONTENT_SHARE = 0.82;
const DATABASE_SHARE = 0.044;
/** How much of the sibling is other software. */
const SIBLING_OTHER_SHARE = 0.1;
/** A fixed moment for all time stamps, so that a disk depends on its seed only. */
const BUILD_TIME = '20250601120000';
const BUILD_TIME_SECONDS = '1748779200';

/**
 * Builds a raw ext4 disk of software of this machine, plus a database. Needs e2fsprogs, but no root and no mount. Throws
 * `usage` for sizes that cannot be, `needs-program`, `target-full`, `cancelled`.
 */
export async function buildDisk(plan: DiskPlan): Promise<BuiltDisk> {
  const { chosen } = choose(plan);
  return writeDisk(plan, inOrderOf(chosen, plan.seed), plan.seed);
}

/**
 * Builds a second machine's disk: mostly the files that {@link buildDisk} chose for the same seed and sizes, laid out in another
 * order, a tenth of them replaced by others, with a database of its own.
 */
export async function buildSibling(plan: DiskPlan): Promise<BuiltDisk> {
  const own = `${plan.seed}/sibling`;
  const { chosen, left } = choose(plan);
  const kept = chosen.filter(({ path, files }) => placeOf(own, 'kept', path, files[0]!.to) >= SIBLING_OTHER_SHARE);
  const dropped = sum(chosen) - sum(kept);
  const others = chooseFolders(left, dropped, own).chosen;
  return writeDisk(plan, inOrderOf([...kept, ...others], own), own);
}

function choose({ sizeBytes, contentBytes = defaultContent(sizeBytes), seed, roots }: DiskPlan) {
  return chooseFolders(readableFolders(roots), contentBytes - databaseBytes(contentBytes), seed);
}

function defaultContent(sizeBytes: number): number {
  return Math.floor(sizeBytes * 0.72);
}

function databaseBytes(contentBytes: number): number {
  return onDisk(contentBytes * DATABASE_SHARE);
}

function sum(folders: readonly Folder[]): number {
  return folders.reduce((total, { bytes }) => total + bytes, 0);
}

async function writeDisk(plan: DiskPlan, folders: readonly Folder[], seed: string): Promise<BuiltDisk> {
  const { path, sizeBytes, signal, contentBytes = defaultContent(sizeBytes) } = plan;
  if (sizeBytes < 16 * 2 ** 20 || contentBytes < 2 ** 20 || contentBytes > sizeBytes * MAX_CONTENT_SHARE) {
    throw new HoldfastError(
      'usage',
      `A disk of ${formatBytes(sizeBytes)} cannot hold ${formatBytes(contentBytes)} of files`,
      {
        remedy: `Take at least 16M and fill at most ${MAX_CONTENT_SHARE * 100} % of it`,
      },
    );
  }
  const scratch = await mkdtemp(join(tmpdir(), 'holdfast-disk-'));
  try {
    const database = await makeDatabase(scratch, databaseBytes(contentBytes), seed, signal);
    const lacking = contentBytes - sum(folders) - databaseBytes(contentBytes);
    // A gap smaller than this is only the last folder that did not fit.
    const madeUp = lacking > contentBytes / 20 ? await makeFiles(scratch, lacking, seed, signal) : [];
    const all = [...folders.slice(0, folders.length / 2), ...database, ...madeUp, ...folders.slice(folders.length / 2)];
    await makeFileSystem(path, sizeBytes, seed, signal);
    await copyFolders(plan, all, join(scratch, 'script'));
    return {
      path,
      sizeBytes,
      files: all.reduce((count, { files }) => count + files.length, 0),
      realBytes: sum(folders),
      databaseBytes: sum(database),
      madeUpBytes: sum(madeUp),
    };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

async function makeFileSystem(path: string, sizeBytes: number, seed: string, signal?: AbortSignal): Promise<void> {
  await rm(path, { force: true });
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(sizeBytes);
  } finally {
    await file.close();
  }
  const uuid = uuidOf(seed);
  await runProgram(
    'mke2fs',
    ['-q', '-F', '-t', 'ext4', '-b', '4096', '-U', uuid, '-E', `hash_seed=${uuid},lazy_itable_init=1,nodiscard`, path],
    { ...(signal ? { signal } : {}), env: { E2FSPROGS_FAKE_TIME: BUILD_TIME_SECONDS } },
  );
}

function uuidOf(seed: string): string {
  const digits = Array.from({ length: 32 }, (_, i) => Math.floor(placeOf(seed, `uuid ${i}`) * 16).toString(16)).join(
    '',
  );
  return digits.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, '$1-$2-4$3-8$4-$5');
}

/** debugfs writes into the image like a kernel would into a mounted disk, but as anybody. */
async function copyFolders(plan: DiskPlan, folders: readonly Folder[], scriptPath: string): Promise<void> {
  const made = new Set(['/']);
  const lines = [`set_current_time ${BUILD_TIME}`];
  const enter = (path: string): void => {
    if (made.has(path)) return;
    enter(dirname(path));
    made.add(path);
    lines.push(`mkdir "${path}"`);
  };
  for (const folder of folders) {
    enter(folder.path);
    for (const { from, to } of folder.files) lines.push(`write "${from}" "${to}"`);
  }
  await writeFile(scriptPath, `${lines.join('\n')}\n`);
  const sizes = folders.flatMap(({ files }) => files.map(({ bytes }) => onDisk(bytes)));
  const totalBytes = sizes.reduce((total, bytes) => total + bytes, 0);
  let [written, doneBytes] = [0, 0];
  const { stderr } = await runProgram('debugfs', ['-w', '-f', scriptPath, plan.path], {
    ...(plan.signal ? { signal: plan.signal } : {}),
    onLine: (line) => {
      // A file that vanished meanwhile is not counted, so the sum may end a little low.
      if (!line.startsWith('Allocated inode')) return;
      doneBytes += sizes[written++] ?? 0;
      plan.onProgress?.(doneBytes, totalBytes);
    },
  });
  refuseFull(plan.path, stderr);
}

/** debugfs goes on after errors and ends with 0: what matters must be found in its words. */
export function refuseFull(path: string, stderr: string): void {
  const line = stderr.split('\n').find((text) => /could not allocate|no space left|no free space/i.test(text));
  if (line === undefined) return;
  throw new HoldfastError('target-full', `The files do not fit on ${path}: ${line.trim()}`, {
    remedy: 'Free some space, or take a larger disk or less content',
  });
}
