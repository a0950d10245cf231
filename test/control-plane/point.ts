import { sealVaultKeys } from '#app/vaults.ts';
import { type Id, makeId } from '#contract/ids.ts';
import { decodeKeys } from '#repository/keys.ts';
import { encodePoint, pointKey } from '#repository/point.ts';
import { openBox, x25519PrivateKey, x25519PublicBytes } from '#repository/sealed-box.ts';
import type { Commit } from '#repository/state.ts';
import type { Plane } from './plane.ts';

/** A signed point of the machine as a proxy would commit it, with one index segment that is in the store. */
export async function makeCommit(
  plane: Plane,
  machine: Id<'machine'>,
  name: string,
): Promise<Commit & { point: Buffer; id: Id<'point'> }> {
  const { services, tenant, context } = plane;
  const recipient = x25519PrivateKey(services.random.bytes(32));
  const sealKey = x25519PublicBytes(recipient).toString('base64url');
  const box = await sealVaultKeys(services, context, tenant.vault, sealKey);
  const keys = decodeKeys(openBox(recipient, box, tenant.vault));
  const takenAtMs = services.clock.nowMs();
  const id = makeId('point', takenAtMs, services.random.bytes(10));
  const point = encodePoint(
    {
      facts: {
        vault: tenant.vault,
        machine,
        point: id,
        parent: null,
        takenAtMs,
        disks: [{ root: null, sizeBytes: 4096 }],
        labels: [],
        sealEpoch: 0,
      },
      secrets: { machineName: name, diskNames: ['root'], changeMarkers: {}, config: null, stats: {} },
    },
    keys,
    services.random,
  );
  const segment = { key: `index/0000000001/${Buffer.from(services.random.bytes(16)).toString('hex')}`, sizeBytes: 5 };
  await services.blobs.putIfAbsent(`v1/${tenant.vault}/${segment.key}`, [Buffer.from('index')]);
  return { id, point, pointKey: pointKey(machine, id), segments: [segment] };
}
