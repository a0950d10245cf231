import { readdirSync, statSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { IndexSegmentReader, readIndexHead } from '#repository/index-segment.ts';
import { PACK_TRAILER_BYTES, type PackSlot, parsePackFooter, parsePackTrailer } from '#repository/pack.ts';

/** What is stored of a vault, compared with what its index needs. */
export interface StoredBytes {
  readonly packs: number;
  readonly packBytes: number;
  readonly largestPackBytes: number;
  /** Bytes of packs that no segment of the generation names. */
  readonly orphanBytes: number;
  /** Bytes of chunks that lie in the named packs more than once. */
  readonly duplicateBytes: number;
}

/** Reads every pack's footer and the index segments of the generation; packs that are not whole throw. */
export async function storedBytes(objects: string, segmentKeys: readonly string[]): Promise<StoredBytes> {
  const vault = await vaultFolderOf(objects);
  const named = new Set<string>();
  for (const key of segmentKeys) {
    const head = readIndexHead(await readFile(join(vault, key)), (length) => new ArrayBuffer(length));
    const reader = new IndexSegmentReader(head, () => undefined);
    for (let i = 0; i < reader.packCount; i++) named.add(reader.packAt(i).id.toString('hex'));
  }
  const seen = new Set<string>();
  const sum = { packs: 0, packBytes: 0, largestPackBytes: 0, orphanBytes: 0, duplicateBytes: 0 };
  for (const path of await filesBelow(join(vault, 'packs'))) {
    const { sizeBytes, slots } = await readPack(path);
    sum.packs++;
    sum.packBytes += sizeBytes;
    sum.largestPackBytes = Math.max(sum.largestPackBytes, sizeBytes);
    if (!named.delete(basename(path))) {
      sum.orphanBytes += sizeBytes;
      continue;
    }
    for (const { id, length } of slots) {
      const chunk = id.toString('hex');
      if (seen.has(chunk)) sum.duplicateBytes += length;
      seen.add(chunk);
    }
  }
  if (named.size > 0) throw new Error(`the index names ${named.size} packs that are not there`);
  return sum;
}

async function readPack(path: string): Promise<{ readonly sizeBytes: number; readonly slots: readonly PackSlot[] }> {
  await using file = await open(path);
  const { size } = await file.stat();
  const trailer = Buffer.alloc(PACK_TRAILER_BYTES);
  await file.read(trailer, 0, trailer.length, size - trailer.length);
  const { offset, length, sha256 } = parsePackTrailer(trailer, size);
  const footer = Buffer.alloc(length);
  await file.read(footer, 0, length, offset);
  return { sizeBytes: size, slots: parsePackFooter(footer, offset, sha256) };
}

/** Keys of the segments that the control plane's database has committed; it must not run. */
export function committedSegments(database: string): string[] {
  using db = new DatabaseSync(database, { readOnly: true });
  const row = db.prepare("SELECT value FROM items WHERE partition LIKE '%#vault-state'").get();
  return segmentKeysOf(JSON.parse(String(row?.value)));
}

/** Keys of the segments that a vault without a control plane has committed. */
export async function segmentsOfVault(objects: string): Promise<string[]> {
  return segmentKeysOf(JSON.parse(await readFile(join(await vaultFolderOf(objects), 'state/vault.json'), 'utf8')));
}

function segmentKeysOf(state: { readonly generation: { readonly segments: readonly { readonly key: string }[] } }) {
  return state.generation.segments.map(({ key }) => key);
}

/** How many jobs the control plane still holds open. */
export function openJobs(database: string): number {
  using db = new DatabaseSync(database, { readOnly: true });
  return db.prepare("SELECT value FROM items WHERE partition = 'open#jobs'").all().length;
}

/**
 * Bytes of objects that had arrived in part when their sender or receiver was killed. Looks at once, without a turn
 * of the event loop: a store that lives on removes them.
 */
export function brokenOff(objects: string): number {
  const folder = join(objects, '.holdfast', 'temporary');
  let bytes = 0;
  for (const name of readdirSync(folder)) bytes += statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0;
  return bytes;
}

/** How many windows of a restore are on the target for good, as the restore's journal has it. */
export async function windowsDone(cache: string): Promise<number> {
  for (const path of await filesBelow(cache)) {
    if (!path.includes('/restores/') || path.endsWith('.new')) continue;
    const text = await readFile(path, 'utf8').catch(() => '');
    if (text !== '') return (JSON.parse(text) as { doneWindows: unknown[] }).doneWindows.length;
  }
  return 0;
}

/** Files that must not be there once all has ended: temporary and half-made ones, journals, sockets. */
export async function leftovers(folder: string): Promise<string[]> {
  const litter =
    /\/\.holdfast\/temporary\/|\/journal\/|\/restores\/|\/tmp\/|\/next\.|\.(new|tmp|partial)$|activation-token/;
  return (await filesBelow(folder)).map((path) => relative(folder, path)).filter((path) => litter.test(`/${path}`));
}

/** Processes, other than this one, that have the folder on their command line. */
export async function processesOn(folder: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(folder)) found.push(`${pid} ${line.replaceAll('\0', ' ').trim()}`);
  }
  return found;
}

/** Paths of all files (and sockets) below a folder; none if it is absent. */
export async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => !entry.isDirectory()).map((entry) => join(entry.parentPath, entry.name));
}

async function vaultFolderOf(objects: string): Promise<string> {
  const vaults = await readdir(join(objects, 'v1'));
  if (vaults.length !== 1) throw new Error(`${vaults.length} vaults in ${objects}`);
  return join(objects, 'v1', vaults[0]!);
}
