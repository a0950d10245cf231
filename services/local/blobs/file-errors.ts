import { HoldfastError } from '#contract/errors.ts';

/** The `code` of a file system error, such as `ENOENT`; `undefined` for anything else. */
export function fileErrorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** Errors that may go away by themselves: out of descriptors, a network file system's hiccup. */
const TRANSIENT = new Set(['EMFILE', 'ENFILE', 'EAGAIN', 'EBUSY', 'ESTALE', 'ETIMEDOUT', 'EINTR']);

/** True if trying the same act again soon may succeed. */
export function isTransient(error: unknown): boolean {
  return TRANSIENT.has(fileErrorCode(error) ?? '');
}

/** What a file system's error means to the user of the store. Our own errors pass unchanged. */
export function storeError(error: unknown, act: string, path: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  const code = fileErrorCode(error);
  const data = { path, code: code ?? 'unknown' };
  switch (code) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new HoldfastError('target-full', `No space left while ${act} ${path}`, {
        cause: error,
        data,
        remedy: 'Free space on the file system of the repository, or raise its quota, and run again.',
      });
    case 'EACCES':
    case 'EPERM':
      return new HoldfastError('store-failed', `No permission for ${act} ${path}`, {
        cause: error,
        data,
        remedy: `Give the user who runs Holdfast read and write permission on the folder.`,
      });
    case 'EROFS':
      return new HoldfastError('store-failed', `The file system is read-only: ${act} ${path}`, {
        cause: error,
        data,
        remedy: 'Mount it writable; if it became read-only by itself, look for disk errors in the system log.',
      });
    case 'ENOTDIR':
      return new HoldfastError('usage', `A part of the key names an object, not a folder: ${path}`, {
        cause: error,
        data,
        remedy: 'No key may continue another key with a "/".',
      });
    default:
      return new HoldfastError('store-failed', `${code ?? String(error)} while ${act} ${path}`, {
        cause: error,
        data,
        retryable: isTransient(error),
        remedy: 'Check the disk and the system log, then run again.',
      });
  }
}
