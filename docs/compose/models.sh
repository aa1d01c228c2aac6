# What the one-shot service does: artefacts, proof, admin token.
set -eu
abgate models build --root /models
abgate models verify --root /models
if [ ! -s /secrets/admin.token ]; then
  python -c 'import secrets; print(secrets.token_urlsafe(32))' >/secrets/admin.token.new
  chown 10001 /secrets/admin.token.new
  chmod 0400 /secrets/admin.token.new
  mv /secrets/admin.token.new /secrets/admin.token
fi
