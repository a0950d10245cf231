/** Amounts as people write and read them: bytes, rates, durations. */

import { HoldfastError } from './errors.ts';

const DECIMAL_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;
const BINARY_SHIFTS: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** Bytes in decimal units with three significant digits, such as `6.21 GB`: what disks and networks are sold in. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes);
  let unit = 0;
  // 999.5 would be printed as 1000: move on to the next unit before that.
  while (value >= 999.5 && unit < DECIMAL_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? '-' : ''}${value.toFixed(digits)} ${DECIMAL_UNITS[unit]}`;
}

/** A rate in bytes a second, such as `412 MB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** Seconds as `0.42 s`, `12.3 s`, `4 min 05 s`, `3 h 12 min` or `2 d 4 h`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86_400)];
  if (hours === 0) return `${minutes} min ${String(whole % 60).padStart(2, '0')} s`;
  if (days === 0) return `${hours} h ${String(minutes % 60).padStart(2, '0')} min`;
  return `${days} d ${hours % 24} h`;
}

/** A share as `42 %` or, below ten percent, `4.2 %`. */
export function formatShare(share: number): string {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

/**
 * Reads a size such as `2G`, `512MiB`, `64k` or `1048576` into bytes. Units are binary, as in qemu-img and dd.
 * Throws `usage` for anything else, and for sizes that are not whole bytes.
 */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const bytes = match ? Number(match[1]) * BINARY_SHIFTS[(match[2] ?? '').toLowerCase()]! : Number.NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw new HoldfastError('usage', `"${text}" is not a size`, { remedy: 'Write it like 512M, 2G or 1048576' });
  }
  return bytes;
}
