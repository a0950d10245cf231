import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { getDefaultTenant } from '#app/tenants.ts';
import { openVaultKeys } from '#app/vaults.ts';
import type { CommandIo } from '#contract/command.ts';
import { HoldfastError } from '#contract/errors.ts';
import { parseArguments } from '#edge/commands/arguments.ts';
import { readPassphrase } from '#edge/commands/vault/open-vault.ts';
import { printResult } from '#edge/commands/vault/output.ts';
import { writeNewSecret } from '#edge/commands/vault/secret-file.ts';
import { writeKeyFile } from '#repository/key-file.ts';
import { Database } from '../database/database.ts';
import { openKeyFile } from '../key-file.ts';
import { SqliteTable } from '../sqlite-table.ts';
import { systemClock } from '../system-clock.ts';
import { systemRandom } from '../system-random.ts';

export const summary = 'Write the key file of the control plane’s vault, for the way out';
export const usage = `Usage: holdfast export-key --key-file F [--data DIR] [--passphrase-file P] [--json]

With this file and the folder DIR/objects (or a copy of it), \`holdfast recover\` restores every point without the
control plane. Keep it where DIR is not. Works while \`holdfast up\` runs.

  --key-file F            the file to write; must not exist
  --data DIR              where \`holdfast up\` keeps everything (default: holdfast-data)
  --passphrase-file P     protect the file by the passphrase on P's first line
  --json                  one JSON object`;

const OPTIONS = {
  'key-file': { type: 'string' },
  data: { type: 'string', default: 'holdfast-data' },
  'passphrase-file': { type: 'string' },
  json: { type: 'boolean' },
} as const;

export async function run(argv: string[], io: CommandIo): Promise<number> {
  const { values } = parseArguments({ command: 'export-key', options: OPTIONS, required: ['key-file'] }, argv);
  const folder = resolve(values.data);
  const file = join(folder, 'control-plane.db');
  if ((await stat(file).catch(() => undefined)) === undefined) {
    throw new HoldfastError('not-found', `${folder} is not the data folder of a control plane`, {
      remedy: 'Give the folder that `holdfast up` was started with: --data DIR',
    });
  }
  const passphrase = await readPassphrase(values['passphrase-file']);
  const database = new Database(file);
  try {
    const table = new SqliteTable(database, systemClock);
    const tenant = await getDefaultTenant({ table });
    const services = { table, keys: await openKeyFile(join(folder, 'service-key'), systemRandom) };
    const keys = await openVaultKeys(services, { tenant: tenant.id }, tenant.vault);
    const keyFile = resolve(values['key-file']!);
    await writeNewSecret(keyFile, await writeKeyFile(keys, passphrase, systemRandom));
    const repo = join(folder, 'objects');
    printResult(io, values.json, { vault: keys.vault, keyFile, repo }, [
      `The keys of vault ${keys.vault} are in ${keyFile}${passphrase === undefined ? '' : ', protected by your passphrase'}.`,
      `List what it opens with: holdfast vault points --repo ${repo} --key-file ${keyFile}`,
    ]);
    return 0;
  } finally {
    await database.close();
  }
}
