import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir, hostname } from 'node:os';
import { join, resolve } from 'node:path';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { parseBytes } from '#contract/quantity.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import type { Blobs } from '#ports/blobs.ts';
import type { Clock } from '#ports/clock.ts';
import type { Random } from '#ports/random.ts';
import { BlobVaultState } from '#repository/blob-state.ts';
import { readKeyFile } from '#repository/key-file.ts';
import { VAULT_KEY } from '#repository/names.ts';
import { vaultPrefix, withPrefix } from '#repository/prefix.ts';
import { checkKeysFit, decodeVaultObject } from '#repository/vault-object.ts';
import type { EngineContext, OpenVault, Progress } from '../../engine/request.ts';
import { progressLine } from '../progress-line.ts';

/** Options that every `vault` verb understands. */
export const VAULT_OPTIONS = {
  repo: { type: 'string' },
  'key-file': { type: 'string' },
  'passphrase-file': { type: 'string' },
  'cache-dir': { type: 'string' },
  json: { type: 'boolean' },
} as const;

export const VAULT_OPTIONS_HELP = `  --repo DIR              folder that holds the vault
  --key-file F            the vault's keys, as \`vault init\` wrote them
  --passphrase-file P     file whose first line opens the key file, if it is protected
  --cache-dir DIR         index copies, fingerprints and journals (default: ~/.cache/holdfast); may be deleted
  --json                  one JSON object a line; the last one is the result`;

export interface VaultValues {
  readonly repo?: string | undefined;
  readonly 'key-file'?: string | undefined;
  readonly 'passphrase-file'?: string | undefined;
  readonly 'cache-dir'?: string | undefined;
  readonly json?: boolean | undefined;
}

/** Opens the vault that the key file belongs to; throws `wrong-key`, `not-found` or `damaged` with what to do. */
export async function openVault(values: VaultValues, access: 'read' | 'write'): Promise<OpenVault> {
  const keys = await readKeyFile(
    await readText(values['key-file']!, 'key file'),
    await readPassphrase(values['passphrase-file']),
  );
  const folder = resolve(values.repo!);
  const settings = { clock: systemClock, random: systemRandom };
  // For reading first: a mistyped folder must not be made.
  const looked = await openFileBlobs(folder, { ...settings, readOnly: true });
  const store = access === 'read' ? looked : await openWritable(looked, folder, settings, vaultPrefix(keys.vault));
  const blobs = withPrefix(store, vaultPrefix(keys.vault));
  const found = await blobs.get(VAULT_KEY);
  if (found === undefined) {
    if ((await blobs.list('')).blobs.length > 0) {
      throw new HoldfastError('missing', `The object ${VAULT_KEY} of the vault in ${folder} is gone`, {
        data: { key: VAULT_KEY },
        remedy: `Copy ${vaultPrefix(keys.vault)}${VAULT_KEY} back from another copy of the vault`,
      });
    }
    const others = await store.list('v1/');
    if (others.blobs.length > 0) {
      throw new HoldfastError('wrong-key', `The key file belongs to vault ${keys.vault}; ${folder} holds another one`, {
        remedy: 'Give the key file that was made with this vault',
      });
    }
    throw new HoldfastError('not-found', `There is no vault in ${folder}`, {
      remedy: 'Check --repo, or make one with: vault init',
    });
  }
  checkKeysFit(decodeVaultObject(found.content), keys);
  const state = new BlobVaultState({ blobs, clock: systemClock, random: systemRandom, mayBeAlive });
  return { id: keys.vault, blobs, state, keys };
}

/** The same folder for writing, if there is a vault in it; else as it was, so that nothing is made. */
async function openWritable(
  looked: Blobs,
  folder: string,
  settings: { readonly clock: Clock; readonly random: Random },
  prefix: string,
): Promise<Blobs> {
  return (await looked.head(prefix + VAULT_KEY)) === undefined ? looked : await openFileBlobs(folder, settings);
}

/** What the engine needs besides the vault, for one command. */
export function engineContext(
  values: VaultValues & { readonly limit?: string | undefined },
  io: CommandIo,
  label: string,
): { readonly context: EngineContext; readonly done: () => void } {
  const line = progressLine(io, systemClock, label);
  const onProgress = (progress: Progress) => {
    if (values.json) io.stdout.write(`${JSON.stringify({ type: 'progress', ...progress })}\n`);
    else line.show(progress);
  };
  const context: EngineContext = {
    clock: systemClock,
    random: systemRandom,
    signal: io.signal,
    onProgress,
    holder: holder(),
    cacheDir: resolve(values['cache-dir'] ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'holdfast')),
    ...(values.limit === undefined ? {} : { bytesPerSecond: rateOf(values.limit) }),
  };
  return { context, done: () => line.clear() };
}

function rateOf(text: string): number {
  const rate = parseBytes(text);
  if (rate > 0) return rate;
  throw new HoldfastError('usage', `A limit of ${text} would let nothing through`, {
    remedy: 'Leave out --limit for no limit',
  });
}

/** The first line of a passphrase file. */
export async function readPassphrase(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const passphrase = (await readText(path, 'passphrase file')).split(/\r?\n/, 1)[0]!;
  if (passphrase === '')
    throw new HoldfastError('usage', `The passphrase file ${path} begins with an empty line`, {
      remedy: 'Put the passphrase on its first line',
    });
  return passphrase;
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT')
      throw new HoldfastError('not-found', `There is no ${what} ${path}`, { cause, remedy: 'Check the path' });
    throw new HoldfastError('unreadable', `The ${what} ${path} cannot be read (${code})`, {
      cause,
      remedy: 'Check its permissions',
    });
  }
}

/** Host, process and the process's start time, so that a reused process id is not taken for the holder. */
function holder(): string {
  return `${hostname()}/${process.pid}/${startTime(process.pid) ?? ''}`;
}

function mayBeAlive(other: string): boolean {
  const [host, pid, started] = other.split('/');
  if (host !== hostname()) return true; // another host: only its lease can tell
  return startTime(Number(pid)) === started;
}

/** Start time of a process in clock ticks since boot (Linux); `undefined` if there is none. */
function startTime(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}
