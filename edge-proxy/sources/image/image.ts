import { open } from 'node:fs/promises';
import { resolve } from 'node:path';
import { HoldfastError, isHoldfastError } from '#contract/errors.ts';
import { isNbdUri, parseNbdUri } from '../../nbd/address.ts';
import { openFileSize } from '../device-size.ts';
import type { DiskLocator, Extent } from '../disk.ts';
import { readFailure } from '../file-errors.ts';
import { nbdExtents } from './extents.ts';
import { formatOfName, type ImageFormat, probeFormat, readHead } from './format.ts';
import { fileExtents } from './holes.ts';
import { serveImage } from './qemu-nbd.ts';
import { checkReferences } from './references.ts';

export interface OpenImageOptions {
  readonly signal?: AbortSignal;
  /** The format, where the operator knows it; default: by the first bytes (block devices: raw). */
  readonly format?: ImageFormat;
  /** Follow references to files anywhere; for images whose headers no guest could write. */
  readonly allowReferences?: boolean;
}

/** An image that is ready to be read, for as long as it is not closed. */
export interface OpenedImage extends AsyncDisposable {
  readonly locator: DiskLocator;
  readonly sizeBytes: number;
  readonly format: ImageFormat | 'nbd';
  /** Ranges that may hold data; the rest reads as zeros. Absent: not known, read everything. */
  readonly allocated?: readonly Extent[];
  close(): Promise<void>;
}

/**
 * Opens a disk image, block device or NBD export (`nbd…://` URI) for reading.
 * Throws `not-found`, `forbidden`, `usage`, `needs-program`, `busy`, `unreadable`, `timeout`, `cancelled`.
 *
 * @example await using image = await openImage('/images/web.qcow2', { signal })
 */
export async function openImage(path: string, options: OpenImageOptions = {}): Promise<OpenedImage> {
  const { signal } = options;
  if (signal?.aborted) throw new HoldfastError('cancelled', `Opening ${path} was cancelled`);
  if (isNbdUri(path)) {
    const address = parseNbdUri(path);
    return opened({ kind: 'nbd', address }, 'nbd', await nbdExtents(address, signal ? { signal } : {}));
  }
  const file = resolve(path); // absolute, or QEMU would take a colon in it for a protocol
  const { sizeBytes, isDevice, head } = await look(file);
  const format = options.format ?? (isDevice ? 'raw' : formatOf(file, head));
  if (format === 'raw') {
    const allocated = isDevice ? undefined : await fileExtents(file, sizeBytes, signal);
    return opened({ kind: 'file', path: file }, format, { sizeBytes, ...(allocated ? { allocated } : {}) });
  }
  if (!options.allowReferences) await checkReferences(file, format, options.format !== undefined);
  const server = await serveImage(file, format, signal);
  try {
    const found = await nbdExtents(server.address, signal ? { signal } : {});
    return opened({ kind: 'nbd', address: server.address }, format, found, server.close);
  } catch (cause) {
    await server.close();
    throw cause;
  }
}

function opened(
  locator: DiskLocator,
  format: OpenedImage['format'],
  found: { readonly sizeBytes: number; readonly allocated?: readonly Extent[] },
  close: () => Promise<void> = async () => {},
): OpenedImage {
  return { locator, format, ...found, close, [Symbol.asyncDispose]: close };
}

async function look(path: string): Promise<{ sizeBytes: number; isDevice: boolean; head: Buffer }> {
  try {
    await using file = await open(path, 'r');
    return { ...openFileSize(file.fd, path), head: await readHead(file) };
  } catch (cause) {
    throw isHoldfastError(cause) ? cause : readFailure(path, cause);
  }
}

/** By content; a name that says raw and a content that claims otherwise is left to a person. */
function formatOf(path: string, head: Buffer): ImageFormat {
  const format = probeFormat(head);
  if (format !== 'raw' && formatOfName(path) === 'raw') {
    throw new HoldfastError('usage', `${path} is raw by its name, but its first bytes claim to be ${format}`, {
      remedy: 'Say which format it is; a guest may have written such a header into its raw disk',
      data: { path },
    });
  }
  return format;
}
