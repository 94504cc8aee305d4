import { distance } from 'fastest-levenshtein'
import { L3capError } from '../core/errors.ts'
import type { Market } from '../core/instrument.ts'
import type { Exchange, InstrumentInfo } from '../exchanges/exchange.ts'
import type { Fetcher } from '../wire/fetcher.ts'

const NEAR_NAMES = 5

/** What an exchange offers, read over REST. `all`: not only the kinds of market that `symbols` name. */
export async function fetchCatalogue(
  exchange: Exchange,
  market: Market | null,
  fetcher: Fetcher,
  symbols: readonly string[],
  signal: AbortSignal
): Promise<InstrumentInfo[]> {
  const catalogue = exchange.catalogue(market)
  const answers: unknown[] = []
  for (const path of catalogue.paths(symbols.map(exchange.spell)))
    answers.push(await fetcher.json(path, signal, 2, catalogue.weight))
  try {
    const infos = catalogue.read(answers)
    if (infos.length === 0) throw new TypeError('the list is empty')
    return infos
  } catch (error) {
    throw new L3capError('REST', `${exchange.id}: the list of instruments has another format`, { cause: error })
  }
}

/** Finds a symbol in any common spelling; undefined when the list has none. */
function finder(exchange: Exchange, infos: readonly InstrumentInfo[]): (symbol: string) => InstrumentInfo | undefined {
  const byName = new Map(infos.map(info => [info.instId, info]))
  const bare = (name: string) => name.toUpperCase().replace(/[^A-Z0-9]/g, '')
  const byLetters = new Map(infos.map(info => [bare(info.instId), info]))
  return symbol => {
    const spelled = exchange.spell(symbol)
    return byName.get(symbol) ?? byName.get(spelled) ?? byLetters.get(bare(spelled))
  }
}

/** Whether the list has all of the symbols. */
export function areListed(exchange: Exchange, symbols: readonly string[], infos: readonly InstrumentInfo[]): boolean {
  return symbols.every(symbol => finder(exchange, infos)(symbol) !== undefined)
}

/** The entries of the symbols in any common spelling. Throws SYMBOL_UNKNOWN with near names. */
export function resolveSymbols(
  exchange: Exchange,
  symbols: readonly string[],
  infos: readonly InstrumentInfo[]
): InstrumentInfo[] {
  const find = finder(exchange, infos)
  const unknown: string[] = []
  const found = symbols.map(symbol => {
    const info = find(symbol)
    if (info === undefined)
      unknown.push(`${exchange.id} has no ${symbol}; near names: ${nearNames(exchange.spell(symbol), infos)}`)
    return info
  })
  if (unknown.length > 0) throw new L3capError('SYMBOL_UNKNOWN', unknown.join('\n'))
  return [...new Set(found.filter(info => info !== undefined))]
}

function nearNames(name: string, infos: readonly InstrumentInfo[]): string {
  const ranked = infos.map(({ instId }) => ({ instId, far: distance(name, instId) }))
  return ranked
    .sort((a, b) => a.far - b.far)
    .slice(0, NEAR_NAMES)
    .map(({ instId }) => instId)
    .join(', ')
}
