import { sealVaultKeys } from '#app/vaults.ts';
import { type Id, makeId } from '#contract/ids.ts';
import { encodeIndexSegment, IndexEntries } from '#repository/index-segment.ts';
import { decodeKeys } from '#repository/keys.ts';
import { packKey } from '#repository/names.ts';
import { encodePoint, pointKey } from '#repository/point.ts';
import { openBox, x25519PrivateKey, x25519PublicBytes } from '#repository/sealed-box.ts';
import type { Commit } from '#repository/state.ts';
import type { Plane } from './plane.ts';

/** A signed point of the machine as a proxy would commit it, with one index segment and its pack in the store. */
export async function makeCommit(
  plane: Plane,
  machine: Id<'machine'>,
  name: string,
): Promise<Commit & { point: Buffer; id: Id<'point'>; pack: string }> {
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
  const pack = { id: Buffer.from(services.random.bytes(16)), sizeBytes: 9, footerOffset: 5 };
  const entries = new IndexEntries();
  entries.add(services.random.bytes(32), entries.addPack(pack), 0);
  const index = encodeIndexSegment(entries);
  const key = `index/0000000001/${Buffer.from(services.random.bytes(16)).toString('hex')}`;
  const segment = { key, sizeBytes: index.length };
  await services.blobs.putIfAbsent(`v1/${tenant.vault}/${packKey(pack.id)}`, [Buffer.from('some pack')]);
  await services.blobs.putIfAbsent(`v1/${tenant.vault}/${key}`, [index]);
  return {
    id,
    point,
    pointKey: pointKey(machine, id),
    segments: [segment],
    pack: `v1/${tenant.vault}/${packKey(pack.id)}`,
  };
}
