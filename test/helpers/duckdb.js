/** Runs the SQL of its standard input, as the command `duckdb` would, and prints the rows of each statement as JSON. */
import { readFileSync } from 'node:fs'
import { DuckDBInstance } from '@duckdb/node-api'

const connection = await (await DuckDBInstance.create(':memory:')).connect()
const statements = await connection.extractStatements(readFileSync(0, 'utf8'))
for (let at = 0; at < statements.count; at++) {
  const statement = await statements.prepare(at)
  const result = await statement.runAndReadAll()
  console.log(JSON.stringify(result.getRowObjectsJson()))
}
