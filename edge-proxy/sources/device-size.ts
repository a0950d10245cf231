import { execFileSync } from 'node:child_process';
import { fstatSync, readFileSync } from 'node:fs';
import { HoldfastError } from '#contract/errors.ts';

const SECTOR_BYTES = 512; // the unit of the kernel's size files, whatever the device's own sectors

/**
 * Size in bytes of an open regular file or block device. Throws `usage` for anything else.
 * A device's size is asked of the kernel's device tree: its file status says 0.
 */
export function openFileSize(fd: number, path: string): { readonly sizeBytes: number; readonly isDevice: boolean } {
  const stat = fstatSync(fd);
  if (stat.isFile()) return { sizeBytes: stat.size, isDevice: false };
  if (!stat.isBlockDevice()) {
    throw new HoldfastError('usage', `${path} is neither a file nor a block device`, {
      remedy: 'Name a disk image or a block device',
    });
  }
  return { sizeBytes: deviceSize(stat.rdev, path), isDevice: true };
}

function deviceSize(device: number, path: string): number {
  // Linux packs device numbers as 12 bits of major and 20 of minor, in three places.
  const major = Math.floor(device / 256) & 0xfff;
  const minor = (device & 0xff) | ((Math.floor(device / 4096) >>> 0) & 0xfff00);
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * SECTOR_BYTES;
  } catch {
    // No such tree (a container, another system): ask the program.
  }
  try {
    return Number(
      execFileSync('blockdev', ['--getsize64', path], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
        timeout: 10_000,
      }),
    );
  } catch (cause) {
    throw new HoldfastError('needs-program', `The size of the block device ${path} cannot be found out`, {
      cause,
      remedy: 'Install the Debian package util-linux (blockdev), or mount /sys',
    });
  }
}
