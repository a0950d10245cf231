import { crockford, ID_PREFIXES, type Id } from '#contract/ids.ts';
import { KeyedHash } from './keyed-hash.ts';
import type { VaultKeys } from './keys.ts';

/** Tag of machine names under the id key; chunk kinds are 1 and 2. */
const NAME_TAG = 3;

/** The id of a machine that is known by its name alone, in a vault used without a control plane. */
export function machineIdOf(keys: VaultKeys, name: string): Id<'machine'> {
  const code = new KeyedHash(keys.idKey).digest(NAME_TAG, Buffer.from(name.normalize('NFC')));
  return `${ID_PREFIXES.machine}_${crockford(code.subarray(0, 16))}`;
}
