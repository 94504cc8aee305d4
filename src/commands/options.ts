import { existsSync } from 'node:fs'
import { join, relative, resolve, sep } from 'node:path'

/** Collects the values of an option that may be repeated or hold several with commas. For commander's `argParser`. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  const values = value
    .split(',')
    .map(part => part.trim())
    .filter(Boolean)
  return [...(previous ?? []), ...values]
}

/** What is wrong with a directory that feeds of a vault are to be written into; nothing when it may be. */
export function outMistakes(vault: string, out: string): string[] {
  const way = relative(resolve(vault), resolve(out)).split(sep)
  if (['raw', 'meta'].includes(way[0]!)) return [`--out: ${out} lies among the files of the vault`]
  return existsSync(join(out, 'raw')) ? [`--out: ${out} holds feeds already`] : []
}
