import { execFile } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { promisify } from 'node:util';

const MIB = 2 ** 20;

export interface CampaignDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/**
 * Writes a sparse raw disk: in each stretch of `stretchBytes` some data at its start, of which four fifths do not
 * compress and one fifth repeats itself. The same seed gives the same disk.
 */
export async function makeDisk(
  path: string,
  plan: {
    readonly seed: number;
    readonly stretches: number;
    readonly stretchBytes: number;
    readonly dataMib: number;
  },
): Promise<CampaignDisk> {
  const noise = createCipheriv('aes-128-ctr', createHash('md5').update(`${plan.seed}`).digest(), Buffer.alloc(16));
  const zeros = Buffer.alloc(MIB);
  const text = Buffer.alloc(MIB, 'a line that is found again and again, as in logs\n');
  const file = await open(path, 'w');
  // An odd end: sizes are multiples of nothing.
  const sizeBytes = (plan.stretches - 1) * plan.stretchBytes + plan.dataMib * 2 * MIB + 12_345;
  try {
    for (let stretch = 0; stretch < plan.stretches; stretch++) {
      for (let i = 0; i < plan.dataMib; i++) {
        const piece = i % 5 === 4 ? text : noise.update(zeros);
        await file.write(piece, 0, MIB, stretch * plan.stretchBytes + i * 2 * MIB);
      }
    }
    await file.truncate(sizeBytes);
  } finally {
    await file.close();
  }
  return { path, sizeBytes };
}

/**
 * True if the image reads as the disk, byte for byte. Unlike a hash of a terabyte of holes this passes over what is
 * empty on both sides.
 */
export async function isIdentical(disk: CampaignDisk, image: string, format: 'raw' | 'qcow2'): Promise<boolean> {
  // What came from or goes to qcow2 is rounded up to whole sectors, which must be zero beyond the end.
  const size = (await stat(image).catch(() => undefined))?.size;
  if (format === 'raw' && size !== disk.sizeBytes && size !== roundUp(disk.sizeBytes, 512)) return false;
  return promisify(execFile)('qemu-img', ['compare', '-f', 'raw', '-F', format, disk.path, image]).then(
    () => true,
    () => false,
  );
}

function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}
