import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';
import { isSound, verifyVault } from '#edge/engine/restore/verify.ts';
import { openReading, readPoint } from '#edge/engine/vault-reading.ts';
import { PointDisk } from '#edge/recovery/point-disk.ts';
import { type KnownDisk, restore, type SmallVault } from './small-vault.ts';

/** A restore of a small disk takes a tenth of a second; one that takes this long hangs. */
const HANG_MS = 20_000;
const EXPECTED = ['damaged', 'missing', 'format-too-new', 'wrong-key'];

/** What became of a restore from a damaged vault: `wrong` says what must never happen. */
export type Outcome =
  | { readonly kind: 'exact' }
  | { readonly kind: 'refused'; readonly error: HoldfastError }
  | { readonly kind: 'wrong'; readonly why: string };

/** Restores a disk while an object is damaged. A point's own damage is named by the point; anything else by bytes too. */
export async function tryRestore(small: SmallVault, disk: KnownDisk, damagedKey: string): Promise<Outcome> {
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<'hang'>((resolve) => {
    timer = setTimeout(resolve, HANG_MS, 'hang');
  });
  try {
    const restored = await Promise.race([restore(small, disk), hang]);
    if (restored === 'hang') return { kind: 'wrong', why: 'it hangs' };
    return restored.equals(disk.content) ? { kind: 'exact' } : { kind: 'wrong', why: 'wrong bytes' };
  } catch (error) {
    const why = faultOf(error, disk, damagedKey);
    return why === undefined ? { kind: 'refused', error: error as HoldfastError } : { kind: 'wrong', why };
  } finally {
    clearTimeout(timer);
  }
}

/** Reads a disk from end to end in this process, as an NBD export of the point does. */
export async function tryRead(
  { test }: SmallVault,
  { machine, point, diskIndex, content }: KnownDisk,
): Promise<Outcome> {
  const cacheDir = join(test.folder, `read-${reads++}`);
  const { vault } = test;
  try {
    const found = (await readPoint(vault, machine, point)).facts.disks[diskIndex]!;
    const context = { ...test.context, cacheDir };
    const { known, reader } = await openReading(vault, await vault.state.generation(), context, true);
    using _known = known;
    const image = { root: found.root === null ? null : Buffer.from(found.root, 'hex'), sizeBytes: found.sizeBytes };
    const bytes = Buffer.alloc(image.sizeBytes);
    await new PointDisk(image, reader).read(0, bytes);
    return bytes.equals(content) ? { kind: 'exact' } : { kind: 'wrong', why: 'wrong bytes read' };
  } catch (error) {
    if (error instanceof HoldfastError && [...EXPECTED, 'not-found'].includes(error.code))
      return { kind: 'refused', error };
    return { kind: 'wrong', why: `reading: ${error instanceof Error ? error.stack : error}` };
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

let reads = 0;

function faultOf(error: unknown, { point, diskIndex, content }: KnownDisk, key: string): string | undefined {
  if (!(error instanceof HoldfastError)) return `not a typed error: ${error instanceof Error ? error.stack : error}`;
  const isOwnPoint = key.endsWith(point);
  if (isOwnPoint && error.code === 'not-found' && error.message.includes(point)) return undefined; // it was deleted
  if (!EXPECTED.includes(error.code)) return `${error.code}: ${error.message}`;
  const { data, message } = error;
  if (data.point !== point || !message.includes(point)) return `the point is not named: ${message}`;
  if (isOwnPoint) return undefined;
  const { offset, length } = data as { offset?: number; length?: number };
  if (data.diskIndex !== diskIndex || !message.includes(`disk ${diskIndex}`))
    return `the disk is not named: ${message}`;
  if (offset === undefined || length === undefined || offset < 0 || length < 1 || offset + length > content.length)
    return `no range of the disk is named: ${offset}+${length}, ${message}`;
  return message.includes(`bytes ${offset} to ${offset + length - 1}`)
    ? undefined
    : `the bytes are not named: ${message}`;
}

let verifications = 0;

/** What a verification of all data says: sound, damage found, or what must never happen. */
export async function tryVerify(small: SmallVault): Promise<'sound' | 'reported' | { readonly wrong: string }> {
  const cacheDir = join(small.test.folder, `verify-${verifications++}`);
  try {
    const result = await verifyVault(small.test.vault, { ...small.test.context, cacheDir }, true);
    return isSound(result) ? 'sound' : 'reported';
  } catch (error) {
    return {
      wrong: error instanceof HoldfastError ? `${error.code}: ${error.message}` : String((error as Error).stack),
    };
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** The object with one bit turned over. */
export function flipped(content: Buffer, bit: number): Buffer {
  const copy = Buffer.from(content);
  copy[bit >>> 3]! ^= 1 << (bit & 7);
  return copy;
}

/** Another object of the same kind, as a mix-up in the store would put in its place. */
export function anotherOf(small: SmallVault, key: string): Buffer | undefined {
  const kind = key.split('/')[0]!;
  const others = [...small.objects].filter(([other]) => other !== key && other.startsWith(`${kind}/`));
  return others.length === 0 ? undefined : small.random.pick(others)[1];
}
