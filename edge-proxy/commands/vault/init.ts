import { rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { makeId } from '#contract/ids.ts';
import { openFileBlobs } from '#local/file-blobs.ts';
import { systemClock } from '#local/system-clock.ts';
import { systemRandom } from '#local/system-random.ts';
import { writeKeyFile } from '#repository/key-file.ts';
import { createVaultKeys } from '#repository/keys.ts';
import { VAULT_KEY } from '#repository/names.ts';
import { vaultPrefix, withPrefix } from '#repository/prefix.ts';
import { describeVault, encodeVaultObject } from '#repository/vault-object.ts';
import { parseArguments } from '../arguments.ts';
import { readPassphrase, VAULT_OPTIONS, VAULT_OPTIONS_HELP } from './open-vault.ts';
import { printResult } from './output.ts';
import { writeNewSecret } from './secret-file.ts';

export const summary = 'Make a new vault in a folder, and its key file';
export const usage = `Usage: holdfast vault init --repo DIR --key-file F [--passphrase-file P] [--json]

Makes the vault and writes its keys to F, which must not exist. Without the key file nothing in the
vault can ever be read again: keep a copy where the vault is not.

${VAULT_OPTIONS_HELP}`;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments(
    { command: 'vault init', options: VAULT_OPTIONS, required: ['repo', 'key-file'] },
    argv,
  );
  const passphrase = await readPassphrase(values['passphrase-file']);
  const folder = resolve(values.repo!);
  const keyFile = resolve(values['key-file']!);
  const store = await openFileBlobs(folder, { clock: systemClock, random: systemRandom });
  if ((await store.list('v1/')).blobs.length > 0) {
    throw new HoldfastError('exists', `There is a vault in ${folder} already`, {
      remedy: 'Use it with its key file, or choose another folder',
    });
  }
  const nowMs = systemClock.nowMs();
  const keys = createVaultKeys(makeId('vault', nowMs, systemRandom.bytes(10)), systemRandom);
  await writeNewSecret(keyFile, await writeKeyFile(keys, passphrase, systemRandom));
  try {
    const blobs = withPrefix(store, vaultPrefix(keys.vault));
    await blobs.putIfAbsent(VAULT_KEY, [encodeVaultObject(describeVault(keys, nowMs))]);
  } catch (error) {
    await rm(keyFile, { force: true }); // the key of nothing
    throw error;
  }
  printResult(
    io,
    values.json,
    { vault: keys.vault, repo: folder, keyFile, protection: passphrase === undefined ? 'none' : 'passphrase' },
    [
      `Vault ${keys.vault} made in ${folder}`,
      `Its keys are in ${keyFile}${passphrase === undefined ? '' : ', protected by your passphrase'}.`,
      'Keep a copy of that file somewhere else: without it nothing in the vault can be read.',
    ],
  );
  return 0;
}
