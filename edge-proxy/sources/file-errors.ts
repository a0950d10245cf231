import { HoldfastError } from '#contract/errors.ts';

/** A failed read or opening of a file or device, as `not-found`, `forbidden` or `unreadable` with what to do. */
export function readFailure(
  path: string,
  cause: unknown,
  range?: { readonly offset: number; readonly length: number },
): HoldfastError {
  const code = codeOf(cause);
  const at = range ? ` at ${range.offset} (${range.length} bytes)` : '';
  const data = { path, ...range };
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
      return new HoldfastError('not-found', `There is no disk ${path}`, { cause, remedy: 'Check the path', data });
    case 'EACCES':
    case 'EPERM':
      return new HoldfastError('forbidden', `No permission to read ${path}`, {
        cause,
        remedy: 'Run as a user who may read it, such as a member of the group disk',
        data,
      });
    case 'EISDIR':
      return new HoldfastError('usage', `${path} is a folder, not a disk`, {
        cause,
        remedy: 'Name a file or a block device',
        data,
      });
    case 'EIO':
      return new HoldfastError('unreadable', `${path} cannot be read${at}: the storage reports an I/O error`, {
        cause,
        remedy: 'Check the health of the storage (smartctl, dmesg)',
        data,
      });
    default:
      return new HoldfastError('unreadable', `${path} cannot be read${at}: ${code}`, {
        cause,
        remedy: 'Check the file and the storage it lies on',
        data,
      });
  }
}

/** A failed write or creation, as `target-full`, `not-found`, `exists`, `forbidden` or `target-failed`. */
export function writeFailure(
  path: string,
  cause: unknown,
  range?: { readonly offset: number; readonly length: number },
): HoldfastError {
  const code = codeOf(cause);
  const at = range ? ` at ${range.offset} (${range.length} bytes)` : '';
  const data = { path, ...range };
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new HoldfastError('target-full', `There is no space left to write ${path}${at}`, {
        cause,
        remedy: 'Free space (or raise the quota) there, then start again: it goes on where it stopped',
        data,
      });
    case 'EFBIG':
      return new HoldfastError('target-full', `The file system of ${path} cannot hold a file of this size`, {
        cause,
        remedy: 'Choose a target on a file system that takes larger files',
        data,
      });
    case 'ENOENT':
    case 'ENOTDIR':
      return new HoldfastError('not-found', `Cannot write ${path}: it or its folder does not exist`, {
        cause,
        remedy: 'Create the folder or check the path',
        data,
      });
    case 'EEXIST':
      return new HoldfastError('exists', `${path} exists already`, {
        cause,
        remedy: 'Choose another name or remove it',
        data,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new HoldfastError('forbidden', `No permission to write ${path} (${code})`, {
        cause,
        remedy: 'Run as a user who may write there',
        data,
      });
    case 'EBUSY':
      return new HoldfastError('busy', `${path} is in use`, { cause, remedy: 'Unmount it or stop what uses it', data });
    case 'EISDIR':
      return new HoldfastError('usage', `${path} is a folder, not a disk`, {
        cause,
        remedy: 'Name a file or a block device',
        data,
      });
    default:
      return new HoldfastError('target-failed', `${path} cannot be written${at}: ${code}`, {
        cause,
        remedy: 'Check the health of the storage (dmesg)',
        data,
      });
  }
}

function codeOf(cause: unknown): string {
  return (cause as NodeJS.ErrnoException | undefined)?.code ?? String(cause);
}
