/**
 * Answers what is remembered under the key, or makes and remembers it: at most `limit` entries, the ones
 * least recently asked for go first, and failures are forgotten at once. Concurrent askers share one making.
 */
export function remember<K, V>(cache: Map<K, Promise<V>>, key: K, limit: number, make: () => Promise<V>): Promise<V> {
  const found = cache.get(key);
  if (found) {
    cache.delete(key);
    cache.set(key, found);
    return found;
  }
  const made = make();
  cache.set(key, made);
  made.catch(() => cache.get(key) === made && cache.delete(key));
  for (const oldest of cache.keys()) {
    if (cache.size <= limit) break;
    cache.delete(oldest);
  }
  return made;
}
