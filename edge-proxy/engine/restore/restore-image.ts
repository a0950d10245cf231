import { rename, rm, stat } from 'node:fs/promises';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { createImageTarget, type TargetFormat } from '../../sources/image/image-target.ts';
import type { EngineContext, RestoreRequest, RestoreResult } from '../request.ts';
import { readPoint } from '../vault-reading.ts';
import { runRestore } from './restore.ts';

/** What a person names as a target: a file to be made, or a block device. */
export interface FileTarget {
  readonly path: string;
  readonly format: 'raw' | TargetFormat;
}

/**
 * Restores a disk to a file or block device. A file gets its name once it is whole: until then it is called
 * `….partial`, from where an interrupted raw restore goes on. Rolling back writes to the file itself.
 */
export async function restoreToFile(
  request: Omit<RestoreRequest, 'target'>,
  target: FileTarget,
  context: EngineContext,
): Promise<RestoreResult> {
  const { path, format } = target;
  const held = await stat(path).catch(() => undefined);
  if (held?.isDirectory())
    throw new HoldfastError('target-failed', `${path} is a folder`, { remedy: 'Give the name of a file in it' });
  if (held?.isBlockDevice() || request.rollback) {
    if (format !== 'raw')
      throw new HoldfastError('usage', `A ${format} image is made anew; it cannot be written in place`, {
        remedy: 'Restore it to a new file',
      });
    return await runRestore({ ...request, target: { kind: 'file', path } }, context);
  }
  const partial = `${path}.partial`;
  try {
    const result = await restoreTo(request, { path: partial, format }, context);
    await rename(partial, path);
    return result;
  } catch (error) {
    // What was given up or cannot succeed leaves nothing; what crashed, was stopped for now or lost its store goes on later.
    const hopeless = isHoldfastError(error, 'damaged') || isHoldfastError(error, 'missing');
    if (isGivenUp(context.signal) || hopeless || format !== 'raw') await rm(partial, { force: true });
    throw error;
  }
}

/** True if the restore was ended on purpose; a reason that is retryable says that it comes again. */
function isGivenUp(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true && !(signal.reason instanceof HoldfastError && signal.reason.retryable);
}

async function restoreTo(
  request: Omit<RestoreRequest, 'target'>,
  { path, format }: FileTarget,
  context: EngineContext,
): Promise<RestoreResult> {
  if (format === 'raw') return await runRestore({ ...request, target: { kind: 'file', path } }, context);
  const { facts } = await readPoint(request.vault, request.machine, request.point);
  const disk = facts.disks[request.diskIndex];
  if (disk === undefined) return await runRestore({ ...request, target: { kind: 'file', path } }, context); // says what is wrong
  await using image = await createImageTarget(path, format, disk.sizeBytes, context.signal);
  return await runRestore({ ...request, point: facts.point, target: image.locator, freshTarget: true }, context);
}
