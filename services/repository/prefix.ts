import type { Blobs } from '#ports/blobs.ts';

/** Where a vault's objects lie in a store that may hold several. */
export function vaultPrefix(vault: string): string {
  return `v1/${vault}/`;
}

/** The part of a store under a prefix, as a store of its own. */
export function withPrefix(blobs: Blobs, prefix: string): Blobs {
  return {
    putIfAbsent: (key, parts, options) => blobs.putIfAbsent(prefix + key, parts, options),
    replaceIf: (key, content, expected) => blobs.replaceIf(prefix + key, content, expected),
    get: (key) => blobs.get(prefix + key),
    getRange: (key, offset, length, signal) => blobs.getRange(prefix + key, offset, length, signal),
    head: (key) => blobs.head(prefix + key),
    delete: (key) => blobs.delete(prefix + key),
    async list(under, cursor) {
      const page = await blobs.list(prefix + under, cursor);
      return { ...page, blobs: page.blobs.map((blob) => ({ ...blob, key: blob.key.slice(prefix.length) })) };
    },
  };
}
