import type { FileHandle } from 'node:fs/promises';

/** Formats by the names that QEMU's programs take. */
export type ImageFormat = 'raw' | 'qcow2' | 'vmdk' | 'vhdx' | 'vdi' | 'vpc';

/** Bytes from the start that {@link probeFormat} looks at. */
export const PROBE_BYTES = 4096;

const VDI_SIGNATURE = 0xbeda107f; // little-endian at 64
const NAMES: Readonly<Record<string, ImageFormat>> = {
  '.raw': 'raw',
  '.qcow2': 'qcow2',
  '.qcow': 'qcow2',
  '.vmdk': 'vmdk',
  '.vhdx': 'vhdx',
  '.vdi': 'vdi',
  '.vhd': 'vpc',
};

/** The format that an image's first bytes claim; `raw` if they claim none. */
export function probeFormat(head: Uint8Array): ImageFormat {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length);
  const text = (from: number, to: number) => bytes.toString('latin1', from, to);
  if (text(0, 4) === 'QFI\xfb' && bytes.length >= 8 && [2, 3].includes(bytes.readUInt32BE(4))) return 'qcow2';
  if (text(0, 4) === 'KDMV' || text(0, 4) === 'COWD') return 'vmdk';
  if (/^# Disk Descriptor ?File/i.test(text(0, 64))) return 'vmdk';
  if (text(0, 8) === 'vhdxfile') return 'vhdx';
  if (text(0, 8) === 'conectix') return 'vpc'; // dynamic; a fixed one starts with the disk itself
  if (bytes.length >= 68 && bytes.readUInt32LE(64) === VDI_SIGNATURE) return 'vdi';
  return 'raw';
}

/** The format that a file's name claims, if it claims one. */
export function formatOfName(path: string): ImageFormat | undefined {
  const dot = path.lastIndexOf('.');
  return dot < 0 ? undefined : NAMES[path.slice(dot).toLowerCase()];
}

/** The first bytes of an open file, fewer if it is shorter. */
export async function readHead(file: FileHandle): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0);
  return buffer.subarray(0, bytesRead);
}
