import { HoldfastError } from '#contract/errors.ts';
import { formatNbdUri } from '../nbd/address.ts';
import { connectNbd, type NbdOptions } from '../nbd/client.ts';
import type { DiskReader, DiskWriter, NbdAddress } from './disk.ts';

/** Opens an export for reading. Throws like connectNbd. */
export async function openNbdReader(address: NbdAddress, options: NbdOptions = {}): Promise<DiskReader> {
  const client = await connectNbd(address, { contexts: [], ...options });
  return {
    sizeBytes: client.sizeBytes,
    style: 'pipelined',
    read: async (offset, into) => {
      if (offset + into.length > client.sizeBytes) throw shrunk(address, client.sizeBytes, offset, into.length);
      await client.read(offset, into);
    },
    close: () => client.close(),
  };
}

/** Opens an export for writing. Throws like connectNbd, `forbidden` if it is read-only, `target-full` if it is smaller than needed. */
export async function openNbdWriter(
  address: NbdAddress,
  options: NbdOptions & { readonly createSizeBytes?: number } = {},
): Promise<DiskWriter> {
  const client = await connectNbd(address, { contexts: [], ...options });
  const needed = options.createSizeBytes ?? 0;
  const at = formatNbdUri(address);
  if (client.readOnly || client.sizeBytes < needed) {
    await client.close();
    if (client.readOnly) {
      throw new HoldfastError('forbidden', `${at} is read-only`, { remedy: 'Let the server export it for writing' });
    }
    throw new HoldfastError('target-full', `${at} has ${client.sizeBytes} bytes, ${needed} are needed`, {
      remedy: 'Export a disk at least as large as the one to be restored',
      data: { sizeBytes: client.sizeBytes, neededBytes: needed },
    });
  }
  return {
    sizeBytes: client.sizeBytes,
    startsZero: false, // nobody knows what was written before
    write: (offset, data) => client.write(offset, data),
    zero: (offset, length) => client.zero(offset, length),
    read: (offset, into) => client.read(offset, into),
    flush: () => client.flush(),
    close: () => client.close(),
  };
}

function shrunk(address: NbdAddress, sizeBytes: number, offset: number, length: number): HoldfastError {
  return new HoldfastError(
    'source-changed',
    `${formatNbdUri(address)} has ${sizeBytes} bytes, ${offset + length} were expected`,
    {
      remedy: 'Open the source anew: its size has changed',
      data: { offset, length, sizeBytes },
    },
  );
}
