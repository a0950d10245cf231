import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { HoldfastError } from '#contract/errors.ts';

/** Writes a key file that only its owner can read; throws `exists` rather than overwrite one. */
export async function writeNewSecret(path: string, text: string): Promise<void> {
  try {
    await mkdir(dirname(path), { recursive: true });
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'EEXIST')
      throw new HoldfastError('exists', `The key file ${path} exists already`, {
        cause,
        remedy: 'Choose another name: a key file is never overwritten',
      });
    throw new HoldfastError('target-failed', `The key file ${path} cannot be written (${code})`, {
      cause,
      remedy: 'Check the folder and its permissions',
    });
  }
}
