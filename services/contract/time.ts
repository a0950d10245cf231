import { z } from 'zod';

/** A moment on the wire: RFC 3339 in UTC with milliseconds, such as `2026-01-31T04:05:06.789Z`. */
export const timeSchema = z.iso.datetime({ precision: 3 });

/** The wire form of a moment; `ms` are milliseconds since 1970. Reads no clock. */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

/** Milliseconds since 1970 of a wire moment; `NaN` if it is none. */
export function msOfTime(text: string): number {
  return Date.parse(text);
}

/** True if the runtime knows the IANA time zone, such as `Asia/Seoul`. */
export function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
