import { Command, Option } from 'commander'
import { defaultVault } from '../config/env.ts'
import { isAddress } from '../config/run.ts'
import { L3capError } from '../core/errors.ts'
import { isoMs } from '../core/time.ts'
import { EXCHANGES } from '../exchanges/registry.ts'
import { instrumentPath } from '../vault/layout.ts'
import { storedMarket, storeMetadata } from '../vault/metadata.ts'
import { Fetcher } from '../wire/fetcher.ts'
import { collect } from './options.ts'
import { fetchCatalogue, resolveSymbols } from './symbols.ts'

interface Options {
  readonly exchange?: string
  readonly symbol: string[]
  readonly vault: string
  readonly restUrl?: string
  readonly market?: string
  readonly list: boolean
  readonly json: boolean
}

/** `l3cap instruments`: fetches and stores metadata, or lists what an exchange offers. */
export function instrumentsCommand(): Command {
  return new Command('instruments')
    .summary('fetch and store instrument metadata')
    .description(
      'Stores metadata of instruments under <vault>/meta; a file is rewritten only when its content differs.'
    )
    .option('--exchange <id>', `one of ${Object.keys(EXCHANGES).join(', ')} (default: none, it must be said)`)
    .addOption(
      new Option('--symbol <name>', 'only these instruments; repeat or commas').argParser(collect).default([], 'all')
    )
    .option('--vault <dir>', 'vault directory; environment L3CAP_VAULT', defaultVault())
    .option('--rest-url <url>', "REST address (default: the exchange's)")
    .option('--market <name>', "kind of market, where the exchange's names do not tell it (default: the usual one)")
    .option('--list', 'print what the exchange offers and what it can prove; store nothing', false)
    .option('--json', 'print JSON', false)
    .action((options: Options) => instruments(options))
}

async function instruments(options: Options): Promise<void> {
  const id = options.exchange ?? ''
  const exchange = Object.hasOwn(EXCHANGES, id) ? EXCHANGES[id] : undefined
  if (exchange === undefined) {
    throw new L3capError('USAGE', `exchange: ${JSON.stringify(id)} is none of ${Object.keys(EXCHANGES).join(', ')}`)
  }
  const markets = exchange.choices.markets ?? []
  const market = markets.find(name => name === options.market) ?? null
  if (options.market !== undefined && market === null) {
    const offered = markets.length > 0 ? `offers ${markets.join(', ')}` : 'has no such choice'
    throw new L3capError('USAGE', `market: ${id} ${offered}, not ${JSON.stringify(options.market)}`)
  }
  if (options.restUrl !== undefined && !isAddress(options.restUrl, 'http'))
    throw new L3capError('USAGE', `rest-url: ${JSON.stringify(options.restUrl)} is no such address`)
  const { restUrl } = exchange.endpoints({ level: exchange.levels[0]!, market, channel: null, updateSpeed: null })
  const fetcher = new Fetcher(options.restUrl ?? restUrl, exchange.limits.restWeightPerMinuteMax)
  const signal = AbortSignal.timeout(60_000)
  const infos = await fetchCatalogue(exchange, market, fetcher, options.symbol, signal)
  const chosen = options.symbol.length > 0 ? resolveSymbols(exchange, options.symbol, infos) : infos
  if (options.list) {
    const levels = Object.entries(exchange.proof).map(
      ([level, { sequence, checksum }]) => `${level}: sequence per ${sequence}, checksum ${checksum}`
    )
    if (options.json)
      process.stdout.write(`${JSON.stringify({ exchange: id, proof: exchange.proof, instruments: chosen })}\n`)
    else
      process.stdout.write(
        `${id} (${levels.join('; ')})\n${chosen.map(info => `${info.instId}\t${info.market}\t${info.status ?? '-'}\n`).join('')}`
      )
    return
  }
  const clashes = chosen.filter(info => (storedMarket(options.vault, id, info.instId) ?? info.market) !== info.market)
  if (clashes.length > 0) {
    const names = clashes.map(({ instId }) => instId).join(', ')
    throw new L3capError(
      'CONFIG',
      `the vault ${options.vault} holds another market of ${id} ${names}: use another vault`
    )
  }
  let written = 0
  for (const info of chosen) {
    if (storeMetadata(instrumentPath(options.vault, id, info.instId), info, isoMs(Date.now() * 1000))) written++
  }
  const report = { exchange: id, instruments: chosen.length, written }
  process.stdout.write(
    options.json ? `${JSON.stringify(report)}\n` : `${chosen.length} instruments, ${written} files written\n`
  )
}
