/** Tokens of scripts. */
import { useState } from "preact/hooks";
import { tell } from "../api/ask";
import { Answered, RecordForm, RemoveButton, idList, useChange } from "../parts/Records";
import { useAnswer } from "../parts/useAnswer";
import { now } from "../state";
import { format, t } from "../words";

interface Token {
  id: string | number;
  name: string;
  role: string;
  regions: string[] | null;
  expires_ms?: number | null;
}

const PATH = "/api/v1/tokens";
const DAY_MS = 86_400_000;

export default function Tokens() {
  const words = t();
  const answer = useAnswer<{ tokens: Token[] }>(PATH);
  const change = useChange(answer.again);
  const [made, setMade] = useState("");
  const [turn, setTurn] = useState(0);
  const add = (values: Record<string, string>) => {
    const days = Number(values["days"]);
    const expires = days > 0 && now.peek() !== null ? { expires_ms: (now.peek() ?? 0) + days * DAY_MS } : {};
    const body = { name: values["name"], role: values["role"], regions: idList(values["regions"] ?? ""), ...expires };
    setMade("");
    void change.run(async () => setMade((await tell<{ token: string }>("POST", PATH, body)).token)).then((done) => done && setTurn(turn + 1));
  };
  return (
    <section class="panel">
      <h1>{words.views.tokens}</h1>
      {change.said}
      {made && <p class="good-news" role="status">{words.tokenOnce} <span class="secret">{made}</span></p>}
      <Answered answer={answer}>
        {({ tokens }) => (
          <>
            <RecordForm
              key={turn}
              fields={[
                { name: "name", label: words.name },
                { name: "role", label: words.role, choices: Object.entries(words.roles) },
                { name: "regions", label: words.regionsAllowed, optional: true },
                { name: "days", label: words.expiresDays, kind: "number", optional: true },
              ]}
              isNew
              busy={change.busy}
              submit={add}
            />
            <div class="table-scroll" tabIndex={0} role="region" aria-label={words.views.tokens}>
              <table>
                <thead><tr><th scope="col">{words.name}</th><th scope="col">{words.role}</th><th scope="col">{words.region}</th><th scope="col">{words.expires}</th><th scope="col"><span class="skip">{words.remove}</span></th></tr></thead>
                <tbody>
                  {tokens.map((token) => (
                    <tr key={token.id}>
                      <th scope="row">{token.name}</th>
                      <td>{words.roles[token.role] ?? token.role}</td>
                      <td>{token.regions?.join(", ") ?? words.allOfThem}</td>
                      <td>{token.expires_ms == null ? words.never : format.full(token.expires_ms)}</td>
                      <td><RemoveButton busy={change.busy} remove={() => void change.run(() => tell("DELETE", `${PATH}/${encodeURIComponent(String(token.id))}`))} /></td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
          </>
        )}
      </Answered>
    </section>
  );
}
