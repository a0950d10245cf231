import { spawnSync } from 'node:child_process';
import type { Run } from './measure.ts';

/** What the machine does at best with one part of the work: nothing that backs up can be faster than the parts it needs. */
export interface Floor {
  readonly name: string;
  readonly run: (image: string) => Run;
}

export const FLOORS: readonly Floor[] = [
  { name: 'cat', run: (image) => ({ program: 'sh', args: ['-c', 'exec cat "$0" > /dev/null', image] }) },
  { name: 'sha256sum', run: (image) => ({ program: 'sha256sum', args: [image] }) },
  { name: 'openssl sha256', run: (image) => ({ program: 'openssl', args: ['dgst', '-sha256', image] }) },
  { name: 'zstd -1 -T2', run: (image) => ({ program: 'zstd', args: ['-1', '-T2', '-f', '-o', '/dev/null', image] }) },
  { name: 'zstd -3 -T2', run: (image) => ({ program: 'zstd', args: ['-3', '-T2', '-f', '-o', '/dev/null', image] }) },
];

/** The floor that the goals compare with. */
export const ZSTD_FLOOR = 'zstd -1 -T2';

/** Bytes that zstd says it wrote: `(  8.00 GiB =>  2.61 GiB, /dev/null)`; undefined for other programs. */
export function writtenBytes(stderr: string): number | undefined {
  const match = /=>\s*([\d.]+)\s*(B|KiB|MiB|GiB|TiB)/.exec(stderr);
  const unit = match && ['B', 'KiB', 'MiB', 'GiB', 'TiB'].indexOf(match[2]!);
  return match === null || unit === null ? undefined : Number(match[1]) * 1024 ** unit;
}

/** True if the floor's program is installed. */
export function isInstalled({ run }: Floor): boolean {
  return spawnSync('sh', ['-c', `command -v ${run('').program}`]).status === 0;
}
