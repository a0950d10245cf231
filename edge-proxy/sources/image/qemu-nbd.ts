import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { listNbdExports } from '../../nbd/client.ts';
import type { NbdAddress } from '../disk.ts';
import type { ImageFormat } from './format.ts';

/** A qemu-nbd of ours that exports one image. */
export interface ImageServer {
  readonly address: NbdAddress;
  /** Ends the program and removes its folder. */
  close(): Promise<void>;
}

/** Connections at a time: each worker has one, and the custodian may look in. */
const CLIENTS = 16;
const START_LIMIT_MS = 15_000;
const FOLDER_PREFIX = 'holdfast-image-';
/** Longest path of a unix socket on Linux. */
const SOCKET_PATH_MAX = 107;
const STDERR_MAX = 4000;

/**
 * Exports an image on a unix socket in a private folder, read-only unless it is to be written. The program dies with
 * this process even if that is killed; call this on the main thread, since the death of a worker thread would end it as
 * well. Throws `needs-program`, `busy` (a running machine holds the image), `not-found`, `forbidden`, `unreadable`, `cancelled`.
 */
export async function serveImage(
  path: string,
  format: ImageFormat,
  signal?: AbortSignal,
  access: 'read' | 'write' = 'read',
): Promise<ImageServer> {
  await sweepOrphans();
  const folder = await makeFolder();
  const socket = join(folder, 's');
  const command = [
    'qemu-nbd',
    ...(access === 'read' ? ['--read-only'] : ['--discard=unmap', '--detect-zeroes=unmap']),
    '--persistent',
    `--shared=${CLIENTS}`,
    `--format=${format}`,
    `--socket=${socket}`,
    path,
  ];
  // The kernel kills it when we die; the sweep at the next start is for systems without this program.
  const guarded = ['/usr/bin/setpriv', '/bin/setpriv'].find((file) => existsSync(file));
  const [program, ...args] = guarded ? [guarded, '--pdeathsig', 'KILL', ...command] : command;
  const child = spawn(program!, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (bytes: Buffer) => {
    if (said.length < STDERR_MAX) said += bytes.toString('utf8');
  });
  const ended = new Promise<Error | number | null>((resolve) => {
    child.once('error', resolve);
    child.once('close', resolve);
  });
  const close = async () => {
    // A reader has nothing to finish; a writer still puts its image in order.
    child.kill(access === 'read' ? 'SIGKILL' : 'SIGTERM');
    if (child.pid !== undefined) await ended;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    if (child.pid !== undefined) await writeFile(join(folder, 'pid'), String(child.pid));
    const address = { socket, exportName: '' };
    const over = new AbortController();
    void ended.then(() => over.abort());
    if (!(await isUp(address, over.signal, signal))) throw notStarted(path, await ended, said);
    return { address, close };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/** Removes the folders, and ends the programs, of processes that are no more. */
export async function sweepOrphans(): Promise<void> {
  for (const base of new Set([tmpdir(), '/tmp'])) {
    for (const name of await readdir(base).catch(() => [])) {
      const owner = new RegExp(`^${FOLDER_PREFIX}(\\d+)-`).exec(name)?.[1];
      if (owner === undefined || isAlive(Number(owner))) continue;
      const folder = join(base, name);
      const pid = Number(await readFile(join(folder, 'pid'), 'utf8').catch(() => 'NaN'));
      const line = Number.isInteger(pid) ? await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '') : '';
      // The number may belong to another program by now: only the one with our socket is ours.
      if (line.includes(join(folder, 's'))) process.kill(pid, 'SIGKILL');
      await rm(folder, { recursive: true, force: true }).catch(() => {}); // another user's: theirs to remove
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function makeFolder(): Promise<string> {
  const name = `${FOLDER_PREFIX}${process.pid}-`;
  const base = join(tmpdir(), name).length + 8 > SOCKET_PATH_MAX ? '/tmp' : tmpdir();
  return mkdtemp(join(base, name)); // made with mode 0700
}

/** True once the socket answers the handshake (a file that exists need not be listened on yet); false if the program ends. */
async function isUp(address: NbdAddress, over: AbortSignal, signal: AbortSignal | undefined): Promise<boolean> {
  const limit = AbortSignal.timeout(START_LIMIT_MS);
  const any = AbortSignal.any([over, limit, ...(signal ? [signal] : [])]);
  for (let pauseMs = 2; !over.aborted; pauseMs = Math.min(pauseMs * 2, 50)) {
    try {
      await listNbdExports(address, { signal: any });
      return true;
    } catch (cause) {
      if (over.aborted) break;
      if (signal?.aborted) throw new HoldfastError('cancelled', 'Opening the image was cancelled');
      if (limit.aborted) {
        throw new HoldfastError('timeout', `qemu-nbd did not serve the image within ${START_LIMIT_MS} ms`, {
          cause,
          retryable: true,
          remedy: 'Check the storage of the image; it may be hanging',
        });
      }
      if (!isHoldfastError(cause, 'unreadable')) throw cause;
    }
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  return false;
}

function notStarted(path: string, end: Error | number | null, said: string): HoldfastError {
  const needs = new HoldfastError('needs-program', `Reading ${path} needs the program qemu-nbd`, {
    remedy: 'Install the Debian package qemu-utils',
  });
  if (end instanceof Error)
    return (end as NodeJS.ErrnoException).code === 'ENOENT' ? needs : unreadable(path, end.message);
  if (/setpriv: .*qemu-nbd.*No such file/.test(said)) return needs;
  if (/Failed to get .* lock/.test(said)) {
    return new HoldfastError('busy', `${path} is held by a running machine`, {
      remedy: 'Back the machine up through its hypervisor, or shut it down first',
      data: { path },
    });
  }
  return unreadable(
    path,
    said
      .trim()
      .replace(/^qemu-nbd: /, '')
      .slice(0, 500) || `qemu-nbd ended with ${end}`,
  );
}

function unreadable(path: string, why: string): HoldfastError {
  return new HoldfastError('unreadable', `${path} cannot be opened as an image: ${why}`, {
    remedy: 'Check it with: qemu-img check',
    data: { path },
  });
}
